"""The processor that this process may use."""

import os
from pathlib import Path


def available_cores() -> int:
    """Cores that this process may use (a container or `taskset` may allow fewer than exist)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def has_cpu_flag(flag: str) -> bool:
    """Whether Linux says that the CPU has it; False on other systems."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
    return flag in text.partition("\nflags")[2].partition("\n")[0].split()
