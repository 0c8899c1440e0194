"""What the commands of `c2gm-bench` share: options, checks, and how results are told."""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from c2gm.runtime.bundle import Bundle
from c2gm.runtime.errors import OptionError, OutputError
from c2gm.runtime.grid import WINDOW_MULTIPLE
from c2gm.runtime.shipped import CPU_MODEL, GPU_MODEL, find_bundle

CPU_BACKENDS = ("onnxruntime", "openvino")
BOTH_MODELS = f"{GPU_MODEL},{CPU_MODEL}"
INSTALLED = "those that are installed"

Models = Annotated[
    str, typer.Option(help="Bundles, separated by commas: folders, or names of shipped ones.")
]
Backends = Annotated[str, typer.Option(help=f"Among {', '.join(CPU_BACKENDS)}.")]
Side = Annotated[int, typer.Option(help="Side of a window in pixels, a multiple of 64.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Output = Annotated[
    Path | None,
    typer.Option(metavar="FILE.json", help="Write all figures to this file as JSON, too."),
]

_WIDTH = 120


def check_seconds(seconds: float) -> None:
    """Raises OptionError for nothing to measure in."""
    if not seconds > 0:
        raise OptionError(f"--seconds is {seconds}, expected more than 0")


def check_side(side: int) -> None:
    """Raises OptionError for a side that graphs do not take."""
    if side < WINDOW_MULTIPLE or side % WINDOW_MULTIPLE:
        raise OptionError(f"--side is {side}, expected a multiple of {WINDOW_MULTIPLE}")


def check_output(output: Path | None) -> None:
    """Before minutes of measuring: can the file be written? Raises OutputError."""
    if output is None:
        return
    folder = output.absolute().parent
    if output.is_dir() or not os.access(folder, os.W_OK):
        what = "is a folder" if output.is_dir() else f"cannot be written: is there {folder}?"
        raise OutputError(f"--output {output} {what}; give a file in a folder that exists")


def find_bundles(models: str) -> list[Bundle]:
    """Raises OptionError for no name, BundleError."""
    names = [name.strip() for name in models.split(",") if name.strip()]
    if not names:
        raise OptionError("--models names no bundle")
    return [Bundle.read(find_bundle(Path(name), "onnxruntime")) for name in names]


def find_backends(text: str) -> Sequence[str]:
    """Raises OptionError for an unknown name."""
    if text == INSTALLED:
        from importlib.util import find_spec

        return [name for name in CPU_BACKENDS if find_spec(name)]
    names = [name.strip() for name in text.split(",")]
    unknown = [name for name in names if name not in CPU_BACKENDS]
    if unknown:
        raise OptionError(
            f"--backends has {unknown[0]!r}, expected some of {', '.join(CPU_BACKENDS)}"
        )
    return names


def say(line: str) -> None:
    """On stderr, at once."""
    print(line, file=sys.stderr, flush=True)


def print_table(table: Table) -> None:
    """As wide as the terminal; 120 columns into a pipe."""
    width = None if sys.stdout.isatty() else _WIDTH
    Console(highlight=False, width=width).print(table)


def tell(document: Mapping[str, Any] | Sequence[Any], as_json: bool, output: Path | None) -> bool:
    """Write the figures to `output`, print them as JSON; False where a table is to be printed.

    Raises OutputError.
    """
    text = json.dumps(document, indent=1) + "\n"
    if output is not None:
        beside = output.with_name(f"{output.name}.part")
        try:
            with beside.open("w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(beside, output)
        except OSError as error:
            raise OutputError(f"{output} cannot be written ({error.strerror})") from None
    if as_json:
        sys.stdout.write(text)
    return as_json
