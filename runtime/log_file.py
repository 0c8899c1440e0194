"""`--log-file FILE`: a run's story in dated plain lines, appended: options, progress, how it ended.

A log is there to help: once it is open, nothing that befalls it ends the run.
"""

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import IO, Self

from c2gm.runtime.archive import partial_path
from c2gm.runtime.errors import C2GMError, OptionError, OutputError
from c2gm.runtime.job import InferOptions, same_file
from c2gm.runtime.progress import PlainReport, ProgressReport

INTERVAL_S = 30.0
"""Seconds between lines of progress."""


@contextmanager
def logged(
    path: Path | None, options: InferOptions, config: Path | None, shown: ProgressReport
) -> Iterator[tuple[ProgressReport, Callable[[str], None]]]:
    """Within this context a run is logged: gives its progress report, and what takes its result.

    Without a path nothing is. Raises OptionError where the log is a file of the run, OutputError
    where it cannot be opened.
    """
    if path is None:
        yield shown, lambda text: None
        return
    _check_name(path, options, config)
    log = LogFile.open(path)
    try:
        given = {name: value for name, value in asdict(options).items() if value is not None}
        log.write(f"c2gm-infer {version('c2gm')} starts in {Path.cwd()}")
        log.write("options: " + ", ".join(f"{name} {value}" for name, value in given.items()))
        yield LoggedReport(shown, log), log.write
        log.write("ended with exit code 0")
    except KeyboardInterrupt:
        log.write("stopped before anything was made, exit code 130")
        raise
    except C2GMError as error:
        log.write(f"error: {' '.join(str(error).split())}, exit code {error.exit_code}")
        raise
    except Exception as error:
        log.write("".join(traceback.format_exception(error)))
        log.write(f"internal error, exit code {C2GMError.exit_code}")
        raise
    finally:
        log.close()


def _check_name(path: Path, options: InferOptions, config: Path | None) -> None:
    output = options.output_path
    own = {
        "--imagery": options.imagery,
        "--reference": options.reference,
        "--aoi": options.aoi,
        "--config": config,
        "--output": output,
        "the partial file of --output": partial_path(output),
    }
    for name, other in own.items():
        same = other is not None and path.absolute() == other.absolute()
        if other is not None and (same or same_file(path, other)):
            raise OptionError(f"--log-file is {path}, which is also {name}; give another name")


class LogFile:
    """An open log; `write` takes any text, and dates every line of it."""

    def __init__(self, path: Path, stream: IO[str]) -> None:
        self._path = path
        self._stream: IO[str] | None = stream
        self.failed: str | None = None
        """Why nothing is written any more."""

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open for appending. Raises OutputError where that is not possible."""
        try:
            if path.exists() and not path.is_file():
                raise OSError(0, "it is not a file")
            return cls(path, path.open("a", encoding="utf-8", errors="replace", buffering=1))
        except OSError as error:
            raise OutputError(
                f"--log-file {path} cannot be written ({error.strerror}); give another name, or "
                "leave it out"
            ) from None

    def write(self, text: str) -> None:
        """Append lines; the first failure is kept in `failed`, and ends the log."""
        if self._stream is None:
            return
        now = datetime.now().astimezone().isoformat(timespec="seconds")
        try:
            for line in text.splitlines():
                self._stream.write(f"{now} {line}\n")
            self._stream.flush()
        except OSError as error:
            self.failed = f"{self._path} cannot be written ({error.strerror}); the log ends here"
            self.close()

    def flush(self) -> None:
        """Every `write` has flushed already."""

    def close(self) -> None:
        """Close the file; what a full disk keeps from it is lost to the log alone."""
        if self._stream is not None:
            with suppress(OSError):
                self._stream.close()
            self._stream = None


class LoggedReport:
    """Progress for the user, and the same for a log."""

    def __init__(self, shown: ProgressReport, log: LogFile, interval_s: float = INTERVAL_S) -> None:
        self._shown, self._log = shown, log
        self._written = PlainReport(log, interval_s)

    def start(self, total: int, done: int) -> None:
        """Begin to count."""
        self._shown.start(total, done)
        self._written.start(total, done)

    def advance(self, level: int, tiles: int) -> None:
        """Count finished tiles."""
        self._shown.advance(level, tiles)
        self._written.advance(level, tiles)
        self._warn_once()

    def note(self, message: str) -> None:
        """One line worth knowing."""
        self._shown.note(message)
        self._written.note(message)
        self._warn_once()

    def close(self) -> None:
        """The run ended; the log goes on with how."""
        self._shown.close()

    def _warn_once(self) -> None:
        if self._log.failed:
            self._shown.note(f"warning: {self._log.failed}")
            self._log.failed = None
