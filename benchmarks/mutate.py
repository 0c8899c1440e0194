"""Good files made bad by chance: JSON in its structure, all others in their bytes."""

import copy
import io
import json
import random
import zipfile
from typing import Any


def flip_bytes(data: bytes, chance: random.Random, front: int | None = None) -> bytes:
    """A few edits, mostly one: bits, bytes, numbers at the edge of their type, lost pieces.

    `front`: where nine of ten edits fall, from the start; default: anywhere.
    """
    out = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 2, 3, 8))):
        if not out:
            break
        end = len(out) if front is None or chance.random() < 0.1 else min(front, len(out))
        at, kind = chance.randrange(end), chance.random()
        if kind < 0.3:
            out[at] ^= 1 << chance.randrange(8)
        elif kind < 0.5:
            out[at] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)))
        elif kind < 0.9:
            size = chance.choice((2, 4, 8))
            top = 1 << 8 * size
            edges = (0, 1, 2, top - 1, top // 2, top // 2 - 1, chance.randrange(top))
            number = chance.choice(edges)
            out[at : at + size] = number.to_bytes(size, "little")
        elif kind < 0.93:  # whatever follows lies elsewhere then
            del out[at : at + chance.randint(1, 16)]
        elif kind < 0.97:
            out[at:at] = out[at : at + chance.randint(1, 16)]
        else:
            del out[at:]
    return bytes(out)


def change_npz(data: bytes, chance: random.Random) -> bytes:
    """One array of a .npz with other bytes and a right checksum; one in five is of the archive."""
    if chance.random() < 0.2:
        return flip_bytes(data, chance, 400)
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(made, "w") as new:
        chosen = chance.choice(old.namelist())
        for name in old.namelist():
            content = old.read(name)
            new.writestr(name, flip_bytes(content, chance, 128) if name == chosen else content)
    return made.getvalue()


def change_json(data: bytes, chance: random.Random) -> bytes:
    """Up to four changes of a document's structure; one in ten is one of its text."""
    if chance.random() < 0.1:
        return flip_bytes(data, chance)
    document = json.loads(data)
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        places = list(_places(document))
        if not places:
            break
        holder, key = chance.choice(places)
        kind = chance.random()
        if kind < 0.6:
            holder[key] = _odd(chance, holder[key])
        elif kind < 0.75:
            del holder[key]
        elif kind < 0.9 and isinstance(holder, dict):
            holder[chance.choice(("surprise", "type", "", "\0", "__class__"))] = holder[key]
        elif isinstance(holder, list):
            holder.extend([holder[key]] * chance.choice((1, 3, 1000)))
    return json.dumps(document).encode()


def _places(node: Any) -> list[tuple[Any, Any]]:
    """All (holder, key) of a document; not in what an earlier change nested deeply."""
    found, waiting = list[tuple[Any, Any]](), [(node, 0)]
    while waiting:
        holder, depth = waiting.pop()
        if isinstance(holder, (dict, list)) and depth < 20:
            keys = list(holder) if isinstance(holder, dict) else range(min(len(holder), 50))
            found += [(holder, key) for key in keys]
            waiting += [(holder[key], depth + 1) for key in keys]
    return found


def _odd(chance: random.Random, value: Any) -> Any:
    deep: Any = []
    for _ in range(400):
        deep = [deep]
    return chance.choice(
        (None, True, 0, -1, 1, 3, 2**31, 2**63, 10**30, -(10**400), 0.5, 1e308, float("nan"))
        + (float("inf"), "", "x", "../x", "/", "\0", "9" * 5000, "é" * 9, [], {}, [[]], [0] * 9)
        + (deep, [copy.deepcopy(value)] * 2, {"a": value}, str(value), [value])
    )
