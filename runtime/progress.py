"""What a run tells while it runs: progress with time left, and seconds per part."""

import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
)


class Stopwatch:
    """Seconds spent in each part of a run, measured where the part runs.

    Parts on other threads overlap with those on the main thread, so that the sum may exceed the
    duration of the run. Processor time is that of the part's own thread: without what a library
    computes on threads of its own.
    """

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self._processor: dict[str, float] = {}
        self._lock = threading.Lock()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Add the duration of the block to a part."""
        start, busy = time.perf_counter(), time.thread_time()
        try:
            yield
        finally:
            elapsed, worked = time.perf_counter() - start, time.thread_time() - busy
            with self._lock:
                self._seconds[name] = self._seconds.get(name, 0.0) + elapsed
                self._processor[name] = self._processor.get(name, 0.0) + worked

    @property
    def seconds(self) -> Mapping[str, float]:
        """Seconds by part, in the order in which the parts first ran."""
        with self._lock:
            return dict(self._seconds)

    @property
    def processor_seconds(self) -> Mapping[str, float]:
        """Processor time by part."""
        with self._lock:
            return dict(self._processor)


FIRST_WINDOWS = 4
"""Too few to tell a pace from."""


class Pace:
    """Time left, from the pace of the last windows: start-up and coarse levels are not the rest."""

    def __init__(
        self, total: int, done: int = 0, history: int = 64, first: int = FIRST_WINDOWS
    ) -> None:
        """`total`, `done`: tiles; a resumed run starts with some done.

        `first`: how often `advance` must be called before a time is told.
        """
        self.total = total
        self._first = first
        self.done = done
        self._marks: deque[tuple[float, int]] = deque([(time.monotonic(), done)], maxlen=history)

    def advance(self, tiles: int) -> None:
        """Count finished tiles."""
        self.done += tiles
        self._marks.append((time.monotonic(), self.done))

    @property
    def tiles_per_second(self) -> float | None:
        """Recent pace; None before anything is finished."""
        (start, before), (end, after) = self._marks[0], self._marks[-1]
        return (after - before) / (end - start) if after > before and end > start else None

    @property
    def seconds_left(self) -> float | None:
        """Estimate for the rest; None before some windows are finished.

        The first come late, when their neighbours are drawn, and would foretell hours.
        """
        pace = self.tiles_per_second
        if pace is None or (len(self._marks) <= self._first and self.done < self.total):
            return None
        return (self.total - self.done) / pace


class ProgressReport(Protocol):
    """What a run calls while it works; every method may be called from the main thread only."""

    def start(self, total: int, done: int) -> None:
        """The run knows how many tiles there are in all, and how many a former run made."""
        ...

    def advance(self, level: int, tiles: int) -> None:
        """Tiles of a level are finished."""
        ...

    def note(self, message: str) -> None:
        """One line worth knowing."""
        ...

    def close(self) -> None:
        """The run ended, well or not."""
        ...


class QuietReport:
    """Says nothing."""

    def start(self, total: int, done: int) -> None:
        """Nothing."""

    def advance(self, level: int, tiles: int) -> None:
        """Nothing."""

    def note(self, message: str) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class TextSink(Protocol):
    """What lines are written to: a stream, a log."""

    def write(self, text: str, /) -> object:
        """Take text."""
        ...

    def flush(self) -> object:
        """Hand it on."""
        ...


class PlainReport:
    """A line every few seconds, for log files and pipes."""

    def __init__(self, stream: TextSink, interval_s: float = 5.0) -> None:
        self._stream = stream
        self._interval_s = interval_s
        self._pace = Pace(0)
        self._printed_at = 0.0

    def start(self, total: int, done: int) -> None:
        """Begin to count."""
        self._pace = Pace(total, done)
        self._printed_at = time.monotonic()

    def advance(self, level: int, tiles: int) -> None:
        """Count, and print if the last line is old or this is the end."""
        self._pace.advance(tiles)
        now = time.monotonic()
        if now - self._printed_at >= self._interval_s or self._pace.done == self._pace.total:
            self._printed_at = now
            self.note(f"{_counts(self._pace)}, level {level}, {_rest(self._pace)}")

    def note(self, message: str) -> None:
        """Print a line."""
        self._stream.write(message + "\n")
        self._stream.flush()

    def close(self) -> None:
        """Nothing is open."""


class TerminalReport:
    """A bar that stays on its line."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._pace = Pace(0)
        self._task: TaskID | None = None
        self._bar = Progress(
            SpinnerColumn(),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("tiles"),
            TextColumn("{task.description}"),
            console=console,
            transient=True,
        )

    def start(self, total: int, done: int) -> None:
        """Show the bar."""
        self._pace = Pace(total, done)
        self._task = self._bar.add_task("starting", total=total, completed=done)
        self._bar.start()

    def advance(self, level: int, tiles: int) -> None:
        """Move the bar."""
        self._pace.advance(tiles)
        if self._task is not None:
            text = f"level {level}, {_rest(self._pace)}"
            self._bar.update(self._task, completed=self._pace.done, description=text)

    def note(self, message: str) -> None:
        """Print a line above the bar."""
        self._console.print(message, markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Take the bar away; what it said last is in the summary."""
        self._bar.stop()


def report_on_stderr(quiet: bool) -> ProgressReport:
    """What suits: a bar in a terminal, lines in a log file, nothing."""
    if quiet:
        return QuietReport()
    if sys.stderr.isatty():
        return TerminalReport(Console(stderr=True))
    return PlainReport(sys.stderr)


def spoken_duration(seconds: float) -> str:
    """`42 s`, `3 min 20 s`, `2 h 5 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def spoken_size(count: int) -> str:
    """Bytes as `1.5 GB`, `0.3 MB`."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def _counts(pace: Pace) -> str:
    share = 100 * pace.done / pace.total if pace.total else 100.0
    return f"{pace.done} of {pace.total} tiles ({share:.0f} %)"


def _rest(pace: Pace) -> str:
    rate, left = pace.tiles_per_second, pace.seconds_left
    if rate is None or left is None:
        return "time left not known yet"
    return f"{rate:.1f} tiles/s, {spoken_duration(left)} left"
