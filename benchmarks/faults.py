"""What happens to runs in the field: kills, damaged files, a full disk. Counted, not believed.

Every fault is done to a real `c2gm-infer` in a process of its own, at a place or moment that a seed
chooses. Afterwards there are two good ends: the map is the undisturbed run's, tile by tile and in
its metadata, or the run refuses in one line with the exit code of what was damaged. All else is
counted as a loss.
"""

import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

IDENTICAL, REFUSED, LOST = "identical", "refused", "LOST"

UNNOTICED = "another picture"
"""A bit flipped among pixels that no checksum guards (JPEG, or no compression at all): the scene
is a valid one of other content, and so is its map."""

PATIENCE_S = 300.0
"""A run that takes longer hangs."""


@dataclass(slots=True)
class Outcome:
    """Of one kind of fault: ends by name, exit codes of refusals, and what went wrong."""

    fault: str
    faults: int = 0
    ends: Counter[str] = field(default_factory=Counter)
    codes: Counter[int] = field(default_factory=Counter)
    losses: list[str] = field(default_factory=list)

    def note(self, end: str, code: int, what: str) -> None:
        """Count an end."""
        self.ends[end] += 1
        if end == REFUSED:
            self.codes[code] += 1
        if end == LOST:
            self.losses.append(what)


@dataclass(frozen=True, slots=True)
class Bench:
    """A run to disturb: its inputs, its options, and what it makes when nobody does."""

    folder: Path
    scene: Path
    model: Path
    options: Sequence[str]
    expected: Any
    seconds: float

    @classmethod
    def prepare(cls, scene: Path, model: Path, folder: Path, options: Sequence[str]) -> "Bench":
        """Copy the inputs and run once, undisturbed."""
        copies = folder / "inputs"
        copies.mkdir()
        shutil.copyfile(scene, copies / scene.name)
        shutil.copytree(model, copies / model.name)
        bench = cls(folder, copies / scene.name, copies / model.name, options, None, 0.0)
        start = time.perf_counter()
        code, line = bench.run(folder / "map.mbtiles")
        if code:
            raise RuntimeError(f"the undisturbed run failed: {line}")
        seconds = time.perf_counter() - start
        expected = contents(folder / "map.mbtiles")
        (folder / "map.mbtiles").unlink()
        return cls(folder, bench.scene, bench.model, options, expected, seconds)

    def command(self, output: Path) -> list[str]:
        """The run's command."""
        call = "from c2gm.runtime.cli import main; main()"
        given = ["--imagery", self.scene, "--model", self.model, "--output", output, "--quiet"]
        return [sys.executable, "-c", call, *map(str, given), *self.options]

    def run(self, output: Path) -> tuple[int, str]:
        """Exit code and what was said on stderr."""
        try:
            done = subprocess.run(
                self.command(output),
                capture_output=True,
                text=True,
                timeout=PATIENCE_S,
                env=_environment(),
            )
        except subprocess.TimeoutExpired:
            return -1, "hangs"
        return done.returncode, done.stderr.strip()

    def killed(self, output: Path, share: float) -> int | None:
        """Kill (-9) a run after a share of its time; the exit code of one that ended before."""
        quiet = subprocess.DEVNULL
        process = subprocess.Popen(
            self.command(output), stdout=quiet, stderr=quiet, env=_environment()
        )
        try:
            return process.wait(share * self.seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            return None

    def judge(
        self,
        outcome: Outcome,
        output: Path,
        allowed: Sequence[int],
        what: str,
        otherwise: str = LOST,
    ) -> None:
        """Run the command (again) and count how it ends; `otherwise`: what another map is."""
        code, said = self.run(output)
        if code == 0:
            same = output.is_file() and contents(output) == self.expected
            outcome.note(IDENTICAL if same else otherwise, code, f"{what}: another map")
            return
        one_line = said.startswith("c2gm-infer: error: ") and len(said.splitlines()) == 1
        fine = code in allowed and one_line and not output.exists()
        outcome.note(REFUSED if fine else LOST, code, f"{what}: exit code {code}, {said[-300:]}")


def _environment() -> dict[str, str]:
    """The same date in all maps, also of runs after midnight."""
    return {**os.environ, "SOURCE_DATE_EPOCH": "0"}


def contents(path: Path) -> list[Any]:
    """All metadata and tiles of a map."""
    with closing(sqlite3.connect(path)) as file:
        queries = ("SELECT * FROM metadata ORDER BY name", "SELECT * FROM tiles ORDER BY 1, 2, 3")
        return [file.execute(query).fetchall() for query in queries]


def kills(bench: Bench, count: int, seed: int) -> Outcome:
    """Kill (-9) runs at random moments, again and again, until each is let finish."""
    outcome, chance = Outcome("killed (-9) at a random moment"), random.Random(seed)
    output = bench.folder / "map.mbtiles"
    while outcome.faults < count:
        started = outcome.faults
        while outcome.faults < count:
            code = bench.killed(output, chance.uniform(0.2, 1.1))
            outcome.faults += code is None
            if output.exists():
                break
            if code == 0:
                outcome.note(LOST, 0, f"after kill {outcome.faults}: exit code 0 without a map")
                break
            if chance.random() < 0.5:
                break
        if output.exists():
            same = contents(output) == bench.expected
            outcome.note(IDENTICAL if same else LOST, 0, f"after kill {outcome.faults}")
        else:
            bench.judge(outcome, output, (), f"after kills {started + 1} to {outcome.faults}")
        remove(output)
    return outcome


def damages(
    bench: Bench, name: str, targets: Sequence[Path], count: int, seed: int, allowed: Sequence[int]
) -> Outcome:
    """Damage one of the files at a random place (a flipped bit, or the end cut off), and run.

    A bit may fall where it decides nothing: then the map is the same. Where the damage lies in a
    run's own inputs, they are the damaged ones for this run alone.
    """
    outcome, chance = Outcome(f"{name} damaged at a random place"), random.Random(seed)
    for number in range(count):
        target = targets[number % len(targets)]
        output = bench.folder / "map.mbtiles"
        with damaged(target, chance) as what:
            outcome.faults += 1
            unguarded = target == bench.scene and "flipped" in what
            bench.judge(outcome, output, allowed, what, UNNOTICED if unguarded else LOST)
        remove(output)
    return outcome


def partial_damages(bench: Bench, count: int, seed: int, allowed: Sequence[int]) -> Outcome:
    """Kill a run in the middle, damage its partial file, and go on."""
    outcome, chance = Outcome("partial file damaged at a random place"), random.Random(seed)
    output = bench.folder / "map.mbtiles"
    partial = output.with_name(output.name + ".partial")
    while outcome.faults < count:
        bench.killed(output, chance.uniform(0.6, 0.95))
        files = [
            path
            for path in (partial, partial.with_name(partial.name + "-wal"))
            if path.exists() and path.stat().st_size
        ]
        if output.exists() or not files:
            remove(output)
            continue
        with damaged(chance.choice(files), chance, restore=False) as what:
            outcome.faults += 1
            bench.judge(outcome, output, allowed, what)
        if not output.exists():  # refused, as it may be: it says to start anew, so does that work?
            remove(output)
            bench.judge(outcome, output, (), f"{what}, begun anew")
            outcome.ends[IDENTICAL] -= 1
        remove(output)
    return outcome


def full_disk(bench: Bench, sizes: Sequence[int], seed: int) -> Outcome | None:
    """Run on file systems that are too small, then make room and go on; None without the right."""
    outcome = Outcome("disk full, then room made")
    place = bench.folder / "small"
    place.mkdir()
    for size in sizes:
        mount = ["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", str(place)]
        if subprocess.run(mount, capture_output=True).returncode:
            return None
        try:
            output = place / "map.mbtiles"
            outcome.faults += 1
            code, said = bench.run(output)
            if code != 9 or output.exists():
                outcome.note(LOST, code, f"{size} KB: exit code {code}, {said[-200:]}")
                continue
            room = ["mount", "-o", "remount,size=64m", str(place)]
            subprocess.run(room, check=True, capture_output=True)
            bench.judge(outcome, output, (), f"{size} KB, then 64 MB")
        finally:
            subprocess.run(["umount", str(place)], check=True, capture_output=True)
    return outcome


@contextmanager
def damaged(target: Path, chance: random.Random, restore: bool = True) -> Iterator[str]:
    """Within this context a file has a flipped bit or lacks its end; yields what was done."""
    whole = target.read_bytes()
    place = chance.randrange(len(whole))
    if chance.random() < 0.3:
        target.write_bytes(whole[:place])
        what = f"{target.name} cut off after {place} of {len(whole)} bytes"
    else:
        data = bytearray(whole)
        data[place] ^= 1 << chance.randrange(8)
        target.write_bytes(data)
        what = f"{target.name}, bit flipped in byte {place} of {len(whole)}"
    try:
        yield what
    finally:
        if restore:
            target.write_bytes(whole)


def remove(output: Path) -> None:
    """Delete a map, its partial file and what belongs to it."""
    for path in output.parent.glob(f"{output.name}*"):
        path.unlink()


def run_faults(
    scene: Path, model: Path, options: Sequence[str], counts: Mapping[str, int], seed: int,
    progress: Callable[[str], None],
) -> list[Outcome]:  # fmt: skip
    """All kinds of faults, each as often as `counts` says: kills, partial, scene, model, disk."""
    with tempfile.TemporaryDirectory() as scratch:
        progress("an undisturbed run")
        bench = Bench.prepare(scene, model, Path(scratch), options)
        progress(f"it took {bench.seconds:.1f} s")
        found: list[Outcome | None] = []
        kinds: dict[str, Callable[[int], Outcome | None]] = {
            "kills": lambda n: kills(bench, n, seed),
            "partial": lambda n: partial_damages(bench, n, seed, (8,)),
            "scene": lambda n: damages(bench, "scene", [bench.scene], n, seed, (3,)),
            "model": lambda n: damages(
                bench, "model", sorted(p for p in bench.model.iterdir()), n, seed, (6,)
            ),
            "disk": lambda n: full_disk(bench, [40 + 30 * i for i in range(n)], seed),
        }
        for name, kind in kinds.items():
            if counts.get(name):
                progress(f"{name}: {counts[name]}")
                outcome = kind(counts[name])
                found.append(outcome)
                if outcome is None:
                    progress(f"{name}: left out, needs the right to mount a file system")
        return [outcome for outcome in found if outcome is not None]
