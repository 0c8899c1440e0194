"""Arrays out of a .npz file that somebody else made: sizes first, then content, never objects."""

import math
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

_UNREADABLE = (
    NotImplementedError,
    OverflowError,
    RuntimeError,
    SyntaxError,
    struct.error,
    tokenize.TokenError,
    zlib.error,
)
"""What zipfile and numpy raise for damaged content, beside what they document."""


def read_arrays(path: Path, names: Sequence[str], limit_bytes: int) -> list[NDArray[Any]]:
    """The named arrays of numbers or text, at most `limit_bytes` in all when unpacked.

    What a file declares is compared with what it holds before anything is allocated. Raises
    ValueError, OSError, EOFError or zipfile.BadZipFile.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = [archive.getinfo(f"{name}.npy") for name in names if _has(archive, name)]
            unpacked = sum(member.file_size for member in members)
            if unpacked > limit_bytes:
                raise ValueError(
                    f"unpacked it has {unpacked} bytes, expected {limit_bytes} at most"
                )
            if len(members) < len(names):
                raise ValueError(f"it holds {sorted(archive.namelist())}, expected {list(names)}")
            return [_read(archive, *pair) for pair in zip(names, members, strict=True)]
    except _UNREADABLE as error:
        raise ValueError(f"its content is damaged: {error}") from None


def _has(archive: zipfile.ZipFile, name: str) -> bool:
    return f"{name}.npy" in archive.namelist()


def _read(archive: zipfile.ZipFile, name: str, member: zipfile.ZipInfo) -> NDArray[Any]:
    with archive.open(member) as file:
        shape, kind = _header(file)
        if kind.hasobject:
            raise ValueError(f"{name} holds objects, expected plain numbers or text")
        declared = math.prod(shape) * kind.itemsize
        held = member.file_size - file.tell()
        if declared != held:
            raise ValueError(f"{name} declares {declared} bytes and holds {held}")
    with archive.open(member) as file:
        array: NDArray[Any] = npy.read_array(file, allow_pickle=False)
        return array


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = npy.read_magic(file)
    read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}.get(version)
    if read is None:
        raise ValueError(f"it is of .npy version {version}")
    shape, _, kind = read(file)
    return shape, kind
