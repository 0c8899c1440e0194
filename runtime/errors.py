"""Every error that a user can cause, each with its documented exit code.

A message says what was found, what was expected and what to do, in one line.
Exit code 2 (wrong usage) belongs to the command-line parser, 1 to a fault of c2gm itself.
"""


class C2GMError(Exception):
    """Base of all errors caused by input or environment; `exit_code` ends the process."""

    exit_code = 1


class OptionError(C2GMError):
    """Options that make no sense alone or together (levels, bounds, steps ...)."""

    exit_code = 2


class SceneError(C2GMError):
    """The imagery cannot be used: missing, truncated, not a raster, no CRS, unsupported bands."""

    exit_code = 3


class AreaError(C2GMError):
    """The area of interest is unreadable or misses the scene."""

    exit_code = 4


class LevelError(C2GMError):
    """Levels outside the trained range, or far finer than the imagery."""

    exit_code = 5


class BundleError(C2GMError):
    """The model bundle is missing, broken, foreign or of another version."""

    exit_code = 6


class BackendError(C2GMError):
    """The asked-for backend is not installed or cannot run here."""

    exit_code = 7


class OutputError(C2GMError):
    """The output exists, cannot be written, or does not verify."""

    exit_code = 8


class DiskFullError(OutputError):
    """No space left where the output is written."""

    exit_code = 9


class ReferenceMapError(C2GMError):
    """The map handed in as first reference cannot be used."""

    exit_code = 10


class WeightsError(C2GMError):
    """Model weights are missing or do not fit the configuration."""

    exit_code = 11


class DataError(C2GMError):
    """Training or evaluation data is missing or malformed."""

    exit_code = 12


class ParityError(C2GMError):
    """An exported graph does not compute what the model computes; nothing was written."""

    exit_code = 13


class EngineBuildError(C2GMError):
    """TensorRT could not build an engine of a graph, or not in the precision asked for."""

    exit_code = 14


class MapError(C2GMError):
    """A finished map cannot be read: missing, not MBTiles with pictures, damaged, being written."""

    exit_code = 15


class ServeError(C2GMError):
    """The viewer cannot listen where it was told to: port taken, no such address, no right."""

    exit_code = 16


class SeamError(C2GMError):
    """A map shows its tile borders more than it was allowed to."""

    exit_code = 17


class Interrupted(C2GMError):
    """The run was stopped by the user (Ctrl-C)."""

    exit_code = 130


def first_line(error: Exception) -> str:
    """What a library's exception says first; its kind where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
