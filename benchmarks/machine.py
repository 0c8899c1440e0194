"""The machine that figures were measured on, in words."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from c2gm.runtime.cpu import available_cores, has_cpu_flag

FLAGS = ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16")
"""Instructions that decide how fast a network runs."""

PACKAGES = ("numpy", "onnxruntime", "openvino", "torch", "diffusers", "pillow", "rasterio")


def describe_machine() -> dict[str, Any]:
    """Processor, cores that may be used, instructions, memory, system and package versions."""
    return {
        "processor": _processor(),
        "cores": available_cores(),
        "instructions": [flag for flag in FLAGS if has_cpu_flag(flag)],
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "system": platform.platform(),
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
    }


def machine_line(machine: dict[str, Any]) -> str:
    """The machine in one line."""
    instructions = ", ".join(machine["instructions"]) or "instructions not known"
    return (
        f"{machine['processor']}, {machine['cores']} cores ({instructions}), "
        f"{machine['memory_gb']:.0f} GB"
    )


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    name = text.partition("model name")[2].partition("\n")[0].lstrip("\t :")
    return name or platform.machine()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
