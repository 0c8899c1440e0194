"""Damaged and invented files, thousands of them, for everything that the runtime reads: counted.

Inputs are real ones, mutated: JSON in its structure, the rest in its bytes. Target, seed and number
make an input again. They are read in processes with little memory and little time; each
is accepted, or refused with the exit code that its kind has. Whatever else happens is a finding.
"""

import json
import os
import random
import resource
import signal
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from c2gm.benchmarks.fuzz_targets import Target, targets
from c2gm.runtime.errors import C2GMError
from c2gm.runtime.manifest import MANIFEST_NAME

ACCEPTED, REFUSED = "accepted", "refused"
TRACEBACK, HANG, MEMORY, CRASH, WRONG = "traceback", "hang", "memory", "crash", "wrong exit code"
FINDINGS = (TRACEBACK, HANG, MEMORY, CRASH, WRONG)

PROCESSOR_S = 10
PATIENCE_S = 120.0
"""Of a clock on the wall, for what waits without working; the machine may be busy."""

ADDRESS_SPACE_BYTES = 4 << 30
BATCH = 50
"""Inputs that one process reads, one after the other."""

RESIDENT_BYTES = 1 << 30
"""More than this, above what the process had before, is absurd for files of some kilobytes."""

_TRACEBACK_CODE, _MEMORY_CODE = 98, 97


@dataclass(slots=True)
class Found:
    """Of one target: outcomes, exit codes of refusals, and the findings with their numbers."""

    target: str
    inputs: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    codes: Counter[int] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)

    def count(self, target: "Target", code: int, said: str, seed: int) -> None:
        """Note how the next input ended."""
        outcome = outcome_of(target, code)
        self.outcomes[outcome] += 1
        if outcome == REFUSED:
            self.codes[code] += 1
        if outcome in FINDINGS:
            what = f"{self.target} {self.inputs} (seed {seed}): {outcome}, code {code}"
            self.findings.append(f"{what}; {said[-800:]}")
        self.inputs += 1


def run_fuzz(
    bundle: Path, names: list[str], minutes: float, seed: int, progress: Callable[[str], None]
) -> list[Found]:
    """Fuzz each target for its share of the time."""
    found: list[Found] = []
    with tempfile.TemporaryDirectory() as scratch:
        for name in names:
            folder = Path(scratch) / name
            folder.mkdir()
            target = targets(folder, bundle)[name]
            found.append(_fuzz(name, target, folder, 60 * minutes / len(names), seed))
            progress(f"{name}: {found[-1].inputs} inputs, {dict(found[-1].outcomes)}")
    return found


def _fuzz(name: str, target: Target, folder: Path, seconds: float, seed: int) -> Found:
    found = Found(name)
    whole = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    whole.setdefault(target.place, target.good)

    def restore() -> None:
        for path in folder.rglob("*"):
            if path.is_file() and path not in whole:
                path.unlink()
        for path in (target.place, folder / "model.c2gm" / MANIFEST_NAME):
            path.write_bytes(whole[path])

    good = in_a_process(target)
    restore()
    if good[0] != ACCEPTED:
        raise RuntimeError(f"the unchanged {name} is not accepted: {good}")
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with tempfile.TemporaryFile() as results:

            def read_some(results: IO[bytes] = results) -> None:
                """In a child: results as lines of JSON, so that its death costs one input."""
                for number in range(found.inputs, found.inputs + BATCH):
                    data = target.mutate(target.good, random.Random(f"{seed}/{name}/{number}"))
                    target.place.write_bytes(data)
                    code, said = _read(target)
                    results.write(json.dumps([code, said]).encode() + b"\n")
                    results.flush()
                    restore()
                    if time.monotonic() > end:
                        break

            died = _forked(read_some)
            restore()
            results.seek(0)
            done = [json.loads(line) for line in results]
        for code, said in [*done, *([died] if died else [])]:
            found.count(target, code, said, seed)
    return found


def in_a_process(target: Target) -> tuple[str, str]:
    """Outcome of reading a target's file as it is, and what was said."""
    with tempfile.TemporaryFile() as results:

        def read_one() -> None:
            results.write(json.dumps(_read(target)).encode())
            results.flush()

        died = _forked(read_one)
        results.seek(0)
        code, said = died or json.loads(results.read())
    return outcome_of(target, code), said


def outcome_of(target: Target, code: int) -> str:
    """What an exit code or a signal (negative) means for a target."""
    named = {0: ACCEPTED, _MEMORY_CODE: MEMORY, _TRACEBACK_CODE: TRACEBACK}
    named[-signal.SIGPROF] = named[-signal.SIGKILL] = HANG
    if code in named:
        return named[code]
    if code < 0:
        return CRASH
    return REFUSED if code in target.codes else WRONG


def _forked(work: Callable[[], None]) -> tuple[int, str] | None:
    """Do something in a process with little memory; how it died, if it did."""
    with tempfile.TemporaryFile() as said:
        child = os.fork()
        if child == 0:
            code = 1
            try:
                os.dup2(said.fileno(), 1)
                os.dup2(said.fileno(), 2)
                resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE_BYTES, ADDRESS_SPACE_BYTES))
                work()
                code = 0
            finally:
                os._exit(code)
        start = time.monotonic()
        while not (ended := os.waitpid(child, os.WNOHANG))[0]:
            if time.monotonic() - start > PATIENCE_S:
                os.kill(child, signal.SIGKILL)
            time.sleep(0.002)
        code = os.waitstatus_to_exitcode(ended[1])
        said.seek(0)
        text = said.read().decode(errors="replace")
    return None if code == 0 else (code, text)


def _read(target: Target) -> tuple[int, str]:
    """Exit code of one reading in this process, and what was said; SIGPROF ends a long one."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    signal.setitimer(signal.ITIMER_PROF, PROCESSOR_S)
    code, said = 0, ""
    try:
        target.read()
    except C2GMError as error:
        code, said = error.exit_code, str(error)
    except MemoryError:
        code = _MEMORY_CODE
    except BaseException:
        code, said = _TRACEBACK_CODE, traceback.format_exc()
    signal.setitimer(signal.ITIMER_PROF, 0)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    return (_MEMORY_CODE, f"{grown} bytes; {said}") if grown > RESIDENT_BYTES else (code, said)
