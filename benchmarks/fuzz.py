"""Damaged and invented files, thousands of them, for everything that the runtime reads: counted.

Inputs are real ones, mutated: JSON in its structure, the rest in its bytes. Target, seed and number
make an input again. Each is read in a process of its own with little memory and little time; it
is accepted, or refused with the exit code that its kind has. Whatever else happens is a finding.
"""

import copy
import io
import json
import os
import random
import resource
import shutil
import signal
import tempfile
import time
import traceback
import zipfile
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.transform import from_origin

from c2gm.runtime.archive import Archive, partial_path
from c2gm.runtime.area import read_area
from c2gm.runtime.bundle import EMBEDDINGS_NAME, MANIFEST_NAME, Bundle, file_spec
from c2gm.runtime.errors import C2GMError
from c2gm.runtime.footprint import Footprint
from c2gm.runtime.grid import Plan, plan
from c2gm.runtime.mbtiles import Metadata
from c2gm.runtime.onnx_files import external_files
from c2gm.runtime.scene import Scene
from c2gm.runtime.tile_codec import encode_tile

ACCEPTED, REFUSED = "accepted", "refused"
TRACEBACK, HANG, MEMORY, CRASH, WRONG = "traceback", "hang", "memory", "crash", "wrong exit code"
FINDINGS = (TRACEBACK, HANG, MEMORY, CRASH, WRONG)

PROCESSOR_S = 10
PATIENCE_S = 120.0
"""Of a clock on the wall, for what waits without working; the machine may be busy."""

ADDRESS_SPACE_BYTES = 4 << 30
RESIDENT_BYTES = 1 << 30
"""More than this, above what the process had before, is absurd for files of some kilobytes."""

_TRACEBACK_CODE, _MEMORY_CODE = 98, 97

Mutator = Callable[[bytes, random.Random], bytes]


@dataclass(frozen=True, slots=True)
class Target:
    """A kind of file: a good one, how it is mutated, what reads it, and its exit codes."""

    good: bytes
    mutate: Mutator
    place: Path
    read: Callable[[], object]
    codes: tuple[int, ...]


@dataclass(slots=True)
class Found:
    """Of one target: outcomes, exit codes of refusals, and the findings with their numbers."""

    target: str
    inputs: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    codes: Counter[int] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)


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


def targets(folder: Path, bundle: Path) -> Mapping[str, Target]:
    """All targets, with their good files made in `folder`; `bundle` is a real one."""
    copied = folder / "model.c2gm"
    shutil.copytree(bundle, copied)
    manifest, embeddings = copied / MANIFEST_NAME, copied / EMBEDDINGS_NAME
    graph, scene, area = copied / "denoise.onnx", folder / "scene.tif", folder / "area.geojson"
    good_manifest = manifest.read_bytes()

    def read_embeddings() -> object:
        document = json.loads(good_manifest)
        document["files"] = [asdict(file_spec(copied, EMBEDDINGS_NAME))]
        manifest.write_text(json.dumps(document))
        return Bundle.read(copied)

    def read_graph() -> object:
        document = json.loads(good_manifest)
        document["graphs"]["denoise"]["files"] = [asdict(file_spec(copied, graph.name))]
        manifest.write_text(json.dumps(document))
        found = Bundle.read(copied)
        return external_files(found.graph_path("denoise"))

    _write_scene(scene)
    area.write_text(json.dumps(_AREA))
    ledger = partial_path(folder / "map.mbtiles")
    planned = _planned()
    good_ledger = _ledger(folder, ledger, planned)
    return {
        "manifest": Target(
            good_manifest, change_json, manifest, lambda: Bundle.read(copied), (6,)
        ),
        "embeddings": Target(
            embeddings.read_bytes(),
            change_npz,
            embeddings,
            read_embeddings,
            (6,),
        ),
        "graph": Target(
            graph.read_bytes(),
            lambda data, chance: flip_bytes(data, chance, 4000),
            graph,
            read_graph,
            (6,),
        ),
        "scene": Target(
            scene.read_bytes(),
            lambda data, chance: flip_bytes(data, chance, 500),
            scene,
            lambda: _look_at(scene),
            (2, 3, 5),
        ),
        "area": Target(
            area.read_bytes(), change_json, area, lambda: _plan_over(area), (2, 4)
        ),
        "ledger": Target(
            good_ledger,
            lambda data, chance: flip_bytes(data, chance, 12 << 10),
            ledger,
            lambda: _go_on(folder / "map.mbtiles", planned),
            (8,),
        ),
    }  # fmt: skip


_AREA = {
    "type": "FeatureCollection",
    "crs": {"type": "name", "properties": {"name": "urn:ogc:def:crs:OGC:1.3:CRS84"}},
    "features": [
        {
            "type": "Feature",
            "properties": {"name": "here"},
            "geometry": {
                "type": "Polygon",
                "coordinates": [[[8.5, 47.3], [8.6, 47.3], [8.6, 47.4], [8.5, 47.3]]],
            },
        },
        {
            "type": "Feature",
            "properties": None,
            "geometry": {
                "type": "GeometryCollection",
                "geometries": [
                    {
                        "type": "MultiPolygon",
                        "coordinates": [[[[9, 47], [9.1, 47], [9.1, 47.1], [9, 47]]]],
                    }
                ],
            },
        },
    ],
}


def _write_scene(path: Path) -> None:
    """A small GeoTIFF; its header and directory lie in its first kilobyte."""
    pixels = np.random.default_rng(0).integers(0, 255, (3, 64, 64), dtype=np.uint8)
    size = {"width": 64, "height": 64, "count": 3, "dtype": "uint8"}
    blocks = {"tiled": True, "blockxsize": 32, "blockysize": 32, "compress": "deflate"}
    place = {"crs": "EPSG:32632", "transform": from_origin(465_000, 5_247_000, 3, 3)}
    with rasterio.open(path, "w", driver="GTiff", nodata=0, **size, **blocks, **place) as file:
        file.write(pixels)


def _look_at(path: Path) -> None:
    with Scene.open(path) as scene:
        scene.check_levels([15])
        scene.fingerprint()
        for window in list(plan((12,), scene.footprints).windows(12))[:2]:
            scene.read(12, *window.pixel_box)


def _plan_over(path: Path) -> Plan:
    area = read_area(path)
    return plan((10,), area, area)


def _planned() -> Plan:
    left, top = 8_600 / 2**14, 5_700 / 2**14
    part = Footprint(left, top, left + 3 / 2**14, top + 2 / 2**14, np.ones((1, 1), np.bool_))
    return plan((13, 14), [part])


def _open(output: Path, planned: Plan) -> Archive:
    return Archive.open(output, planned, Metadata("a", "b", "c", "1", "2026-01-01"), {"seed": "0"})


def _ledger(folder: Path, partial: Path, planned: Plan) -> bytes:
    """A partial file of a run that has all windows but the last, journal merged."""
    picture = np.full((256, 256, 4), 200, np.uint8)
    windows = [window for level in planned.levels for window in planned.windows(level)]
    with _open(folder / "map.mbtiles", planned) as archive:
        for window in windows[:-1]:
            tiles = planned.tiles_of(window)
            archive.put_window(window, [(tile, encode_tile(picture)) for tile in tiles])
    return partial.read_bytes()


def _go_on(output: Path, planned: Plan) -> None:
    """What a run does with it: ask for what is done, make the rest, read it all, finish."""
    picture = np.full((256, 256, 4), 100, np.uint8)
    with _open(output, planned) as archive:
        done = archive.done()
        for level in planned.levels:
            for window in planned.windows(level):
                tiles = planned.tiles_of(window)
                if window.key in done:
                    [archive.get_tile(tile) for tile in tiles]
                else:
                    archive.put_window(window, [(tile, encode_tile(picture)) for tile in tiles])
        archive.finish()


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
        data = target.mutate(target.good, random.Random(f"{seed}/{name}/{found.inputs}"))
        target.place.write_bytes(data)
        outcome, code, said = in_a_process(target)
        found.outcomes[outcome] += 1
        if outcome == REFUSED:
            found.codes[code] += 1
        elif outcome != ACCEPTED:
            found.findings.append(f"{name} {found.inputs} (seed {seed}): {outcome}; {said[-800:]}")
        found.inputs += 1
        restore()
    return found


def in_a_process(target: Target) -> tuple[str, int, str]:
    """Outcome, exit code and what was said of one reading."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with tempfile.TemporaryFile() as said:
        child = os.fork()
        if child == 0:
            _child(target, said.fileno())
        start = time.monotonic()
        while True:
            done, status, usage = os.wait4(child, os.WNOHANG)
            if done:
                break
            if time.monotonic() - start > PATIENCE_S:
                os.kill(child, 9)
                os.waitpid(child, 0)
                return HANG, -1, f"over {PATIENCE_S:.0f} s"
            time.sleep(0.001)
        said.seek(0)
        text = said.read().decode(errors="replace")
    code = os.waitstatus_to_exitcode(status)
    if code == _MEMORY_CODE or (usage.ru_maxrss - before) * 1024 > RESIDENT_BYTES:
        return MEMORY, code, f"{usage.ru_maxrss / 1024:.0f} MB; {text}"
    if code == -signal.SIGXCPU:
        return HANG, code, f"over {PROCESSOR_S} s of processor time"
    if code < 0:
        return CRASH, code, f"signal {-code}; {text}"
    if code == _TRACEBACK_CODE:
        return TRACEBACK, code, text
    if code and code not in target.codes:
        return WRONG, code, text
    return (REFUSED if code else ACCEPTED), code, text


def _child(target: Target, said: int) -> None:
    """Read in this process, which ends here."""
    os.dup2(said, 1)
    os.dup2(said, 2)
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE_BYTES, ADDRESS_SPACE_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (PROCESSOR_S, PROCESSOR_S + 5))
    code = 0
    try:
        target.read()
    except C2GMError as error:
        os.write(2, str(error).encode(errors="replace"))
        code = error.exit_code
    except MemoryError:
        code = _MEMORY_CODE
    except BaseException:
        os.write(2, traceback.format_exc().encode(errors="replace"))
        code = _TRACEBACK_CODE
    finally:
        os._exit(code)
