"""What `fuzz` mutates: one good file of each kind that the runtime reads, and what reads it."""

import json
import random
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import rasterio
from rasterio.transform import from_origin

from c2gm.benchmarks.mutate import change_json, change_npz, flip_bytes
from c2gm.runtime.archive import Archive, partial_path
from c2gm.runtime.area import read_area
from c2gm.runtime.bundle import Bundle, file_spec
from c2gm.runtime.footprint import Footprint
from c2gm.runtime.grid import Plan, plan
from c2gm.runtime.manifest import EMBEDDINGS_NAME, MANIFEST_NAME
from c2gm.runtime.mbtiles import Metadata
from c2gm.runtime.onnx_files import external_files
from c2gm.runtime.scene import Scene
from c2gm.runtime.tile_codec import encode_tile

Mutator = Callable[[bytes, random.Random], bytes]


@dataclass(frozen=True, slots=True)
class Target:
    """A kind of file: a good one, how it is mutated, what reads it, and its exit codes."""

    good: bytes
    mutate: Mutator
    place: Path
    read: Callable[[], object]
    codes: tuple[int, ...]


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
