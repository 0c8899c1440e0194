"""How every command of c2gm runs and ends: one line for an error, and its documented exit code."""

import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Annotated, NoReturn, cast

import typer

from c2gm.runtime.errors import BackendError, C2GMError, Interrupted, OptionError

# Typer has its own copy of click in some versions and none in others; this is the class of either.
_UsageError = cast(type[Exception], typer.BadParameter.__mro__[1])


def _show_version(value: bool) -> None:
    if value:
        typer.echo(f"c2gm {version('c2gm')}")
        raise typer.Exit


Version = Annotated[
    bool,
    typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an internal error.")]
"""Options that every command of the runtime has; `run_program` looks for the second itself."""

_LONGEST_LINE = 1500


def run_command(
    program: str,
    load: Callable[[], typer.Typer],
    arguments: Sequence[str] | None = None,
    *,
    stopped: str,
    extra: str | None = None,
) -> NoReturn:
    """Run a command and end the process; only faults of c2gm itself leave as exceptions.

    `load` imports and returns the command; `stopped` says what Ctrl-C and SIGTERM leave behind;
    `extra` names the extra of the package that brings what the base install lacks.
    """
    argv = list(sys.argv[1:] if arguments is None else arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        app = load()
        if not argv and app.info.no_args_is_help is True:
            argv = ["--help"]
        code = app(argv, prog_name=program, standalone_mode=False)
        if code == Interrupted.exit_code:  # some versions of Typer turn Ctrl-C into this
            raise KeyboardInterrupt
    except (KeyboardInterrupt, typer.Abort):
        leave(program, stopped, Interrupted.exit_code)
    except C2GMError as error:
        leave(program, str(error), error.exit_code)
    except _UsageError as error:
        leave(program, f"{_message(error)}; see {program} --help", OptionError.exit_code)
    except ModuleNotFoundError as error:
        if extra is None or str(error.name).startswith("c2gm"):
            raise
        install = (
            f"{program} needs {error.name}, which is not installed; pip install 'c2gm[{extra}]'"
        )
        leave(program, install, BackendError.exit_code)
    sys.exit(code if isinstance(code, int) else 0)


def run_program(
    program: str, app: typer.Typer, arguments: Sequence[str] | None, *, stopped: str
) -> NoReturn:
    """Run a command of the runtime; a fault of c2gm is a line, too, with --debug its traceback."""
    argv = list(sys.argv[1:] if arguments is None else arguments)
    try:
        run_command(program, lambda: app, argv, stopped=stopped)
    except Exception as error:
        if "--debug" in argv:
            traceback.print_exc()
        leave(
            program,
            f"internal error ({type(error).__name__}: {error}); please report it with the output "
            "of the same command and --debug",
            C2GMError.exit_code,
        )


def whole_numbers(option: str, text: str) -> tuple[int, ...]:
    """An option's list, `1,2,4` -> (1, 2, 4). Raises OptionError."""
    try:
        return tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError:
        raise OptionError(f"{option} is {text!r}, expected whole numbers as in 1,2,4") from None


def leave(program: str, message: str, code: int) -> NoReturn:
    """End the process with one line on stderr."""
    line = " ".join(message.split())
    if len(line) > _LONGEST_LINE:  # an input may hold names or numbers without end
        line = f"{line[: _LONGEST_LINE // 2]} ... {line[-_LONGEST_LINE // 2 :]}"
    sys.stderr.write(f"{program}: error: {line}\n")
    sys.exit(code)


def _message(error: BaseException) -> str:
    text = error.format_message() if hasattr(error, "format_message") else str(error)
    return str(text).rstrip(".")
