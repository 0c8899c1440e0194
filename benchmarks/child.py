"""`c2gm-infer` in a process of its own, with what the system says that it took."""

import json
import resource
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from c2gm.runtime.errors import C2GMError

_CALL = "from c2gm.runtime.cli import main; main()"


@dataclass(frozen=True, slots=True)
class Child:
    """A process that has ended. Processor time is of all its threads, interpreter included."""

    text: str
    wall_s: float
    processor_s: float


def run_child(*arguments: str) -> Child:
    """Run `c2gm-infer`; no other child may end meanwhile. Raises C2GMError with its last line."""
    before, start = _children_s(), time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", _CALL, *arguments],
        capture_output=True,
        text=True,
    )
    wall, processor = time.perf_counter() - start, _children_s() - before
    if done.returncode:
        raise C2GMError(f"c2gm-infer {' '.join(arguments)}: {done.stderr.strip()[-500:]}")
    return Child(done.stdout, wall, processor)


def infer(*arguments: str) -> Mapping[str, Any]:
    """The summary of a run. Raises as `run_child`."""
    return summary_of(run_child(*arguments, "--json", "--quiet"))


def summary_of(child: Child) -> Mapping[str, Any]:
    """What a run with `--json` printed."""
    summary: Mapping[str, Any] = json.loads(child.text)
    return summary


def _children_s() -> float:
    """Processor time of all children that have ended, and of theirs."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
