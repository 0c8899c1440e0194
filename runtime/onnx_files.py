"""Which other files an ONNX graph would have read: found in its bytes, before a library opens it.

A tensor of a graph may lie outside it, in a file that it names (`external_data`, ONNX IR
specification, "External tensor data"). Only what the bundle vouches for may be read, so the names
are looked up here; protobuf's wire format is all that is needed to find them.
"""

import mmap
from collections.abc import Iterator
from pathlib import Path

_MODEL, _GRAPH, _NODE, _ATTRIBUTE, _TENSOR, _ENTRY, _SPARSE, _FUNCTION, _TRAINING = range(9)

_INSIDE: dict[int, dict[int, int]] = {
    _MODEL: {7: _GRAPH, 20: _TRAINING, 25: _FUNCTION},
    _TRAINING: {1: _GRAPH, 2: _GRAPH},
    _GRAPH: {1: _NODE, 5: _TENSOR, 15: _SPARSE},
    _FUNCTION: {7: _NODE, 11: _ATTRIBUTE},
    _NODE: {5: _ATTRIBUTE},
    _ATTRIBUTE: {5: _TENSOR, 6: _GRAPH, 10: _TENSOR, 11: _GRAPH, 22: _SPARSE, 23: _SPARSE},
    _SPARSE: {1: _TENSOR, 2: _TENSOR},
    _TENSOR: {13: _ENTRY},
}
"""Field numbers of messages that may hold a tensor, by message (onnx.proto, IR version 13)."""

_DEEPEST = 200
"""Messages within messages: control flow nests a few graphs, nobody nests this many."""


def external_files(path: Path) -> set[str]:
    """Names of the files that a graph takes tensors from; empty for a graph that is whole.

    Raises ValueError for what is no ONNX file, OSError.
    """
    with path.open("rb") as file:
        if not path.stat().st_size:
            raise ValueError("it is empty")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return set(_locations(data, 0, len(data), _MODEL, 0))


def _locations(data: mmap.mmap, start: int, end: int, kind: int, depth: int) -> Iterator[str]:
    if depth > _DEEPEST:
        raise ValueError("its messages are nested without end")
    if kind == _ENTRY:
        entry = {field: data[a:b] for field, a, b in _fields(data, start, end)}
        if entry.get(1) == b"location":
            yield entry.get(2, b"").decode("utf-8", "replace")
        return
    for field, first, last in _fields(data, start, end):
        inner = _INSIDE[kind].get(field)
        if inner is not None:
            yield from _locations(data, first, last, inner, depth + 1)


def _fields(data: mmap.mmap, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """(field number, start, end) of a message's length-delimited fields."""
    place = start
    while place < end:
        key, place = _varint(data, place, end)
        wire = key & 7
        if wire == 0:
            _, place = _varint(data, place, end)
            continue
        if wire == 2:
            size, place = _varint(data, place, end)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
        else:
            raise ValueError(f"wire type {wire} at byte {place}")
        if size > end - place:
            raise ValueError(f"a field of {size} bytes ends beyond byte {end}")
        if wire == 2:
            yield key >> 3, place, place + size
        place += size


def _varint(data: mmap.mmap, place: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while place < end and shift < 70:
        byte = data[place]
        value |= (byte & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if byte < 0x80:
            return value, place
    raise ValueError(f"a number at byte {place} does not end")
