"""Files that are wrong in one way each, made for real: what the rows of `bad_inputs` name.

A maker is called with the case's folder, which holds a good `scene.tif` and a good `tiny.c2gm`.
"""

import json
import os
import shutil
import sqlite3
import zipfile
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import rasterio
from rasterio.control import GroundControlPoint
from rasterio.transform import Affine, from_origin

from c2gm.runtime.bundle import file_spec
from c2gm.runtime.manifest import EMBEDDINGS_NAME, MANIFEST_NAME

Maker = Callable[[Path], object]

UTM = from_origin(465_000.0, 5_247_000.0, 3.0, 3.0)
HERE = (8.5352, 47.3673, 8.5459, 47.3739)
"""West, south, east, north of a box inside the scene, degrees."""


def nothing(folder: Path) -> None:
    """The mistake is in the command alone."""


def both(*makers: Maker) -> Maker:
    """One after the other."""
    return lambda folder: [make(folder) for make in makers]


# Any file


def text(name: str, content: str = "hello, this is no such file\n") -> Maker:
    return lambda folder: (folder / name).write_text(content, encoding="utf-8")


def raw(name: str, content: bytes) -> Maker:
    return lambda folder: (folder / name).write_bytes(content)


def pipe(name: str) -> Maker:
    """A named pipe: whoever opens it for reading waits for ever."""
    return lambda folder: os.mkfifo(folder / name)


def sparse(name: str, size: int) -> Maker:
    """A file of so many bytes that takes no room."""

    def make(folder: Path) -> None:
        with (folder / name).open("wb") as file:
            file.truncate(size)

    return make


def folder_named(name: str) -> Maker:
    return lambda folder: (folder / name).mkdir()


def link(name: str, target: str) -> Maker:
    return lambda folder: (folder / name).symlink_to(target)


# Rasters


def raster(
    name: str,
    pixels: Any = None,
    *,
    bands: int = 3,
    dtype: str = "uint8",
    crs: str | None = "EPSG:32632",
    transform: Affine = UTM,
    **profile: Any,
) -> Maker:
    """A GeoTIFF of 64 x 64 px; without `pixels` all of them are 90."""

    def make(folder: Path) -> None:
        values = np.full((bands, 64, 64), 90) if pixels is None else pixels
        size = {"count": len(values), "height": values.shape[1], "width": values.shape[2]}
        kind = {"driver": "GTiff", "dtype": dtype, "crs": crs, "transform": transform}
        with rasterio.open(folder / name, "w", **{**kind, **size, **profile}) as file:
            file.write(values.astype(dtype))

    return make


def huge(name: str, side: int, block: int) -> Maker:
    """A GeoTIFF that declares side x side pixels and holds none of them."""

    def make(folder: Path) -> None:
        profile = {"driver": "GTiff", "count": 3, "dtype": "uint8", "width": side, "height": side}
        blocks = {"tiled": True, "blockxsize": block, "blockysize": block, "SPARSE_OK": True}
        place = {"crs": "EPSG:32632", "transform": from_origin(465_000, 5_247_000, 0.1, 0.1)}
        more = {"compress": "deflate", "BIGTIFF": "YES"}
        with rasterio.open(folder / name, "w", **profile, **blocks, **place, **more):
            pass

    return make


def noise_raster(name: str) -> Maker:
    """A compressed one, so that damage shows."""
    pixels = np.random.default_rng(0).integers(0, 255, (3, 512, 512))
    return raster(name, pixels, tiled=True, compress="deflate")


def cut(name: str, kept: float) -> Maker:
    """A noisy raster that lost its end."""

    def make(folder: Path) -> None:
        noise_raster(name)(folder)
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: int(kept * len(data))])

    return make


def flipped(name: str) -> Maker:
    """A noisy raster with one changed byte in a compressed block."""

    def make(folder: Path) -> None:
        noise_raster(name)(folder)
        data = bytearray((folder / name).read_bytes())
        data[len(data) // 2] ^= 0xFF
        (folder / name).write_bytes(data)

    return make


def zeroed_jpeg(name: str, size: int = 3000, byte: int = 0) -> Maker:
    """A raster of JPEG blocks with a hole in one: libjpeg would only warn."""

    def make(folder: Path) -> None:
        pixels = np.random.default_rng(0).integers(0, 255, (3, 512, 512))
        raster(name, pixels, tiled=True, compress="jpeg", photometric="ycbcr")(folder)
        data = bytearray((folder / name).read_bytes())
        data[len(data) // 2 : len(data) // 2 + size] = bytes([byte]) * size
        (folder / name).write_bytes(data)

    return make


def control_points(name: str) -> Maker:
    """A raster that is tied to the ground by three points, and has no geotransform."""

    def make(folder: Path) -> None:
        raster(name, crs=None, transform=Affine.identity())(folder)
        corners = ((0, 0), (0, 64), (64, 0))
        points = [GroundControlPoint(r, c, 5e5 + c, 5e6 - r) for r, c in corners]
        with rasterio.open(folder / name, "r+") as file:
            file.gcps = points, "EPSG:32632"

    return make


def vrt(
    name: str,
    source: str = "scene.tif",
    *,
    srs: str = "EPSG:32632",
    geotransform: str = "465000,3,0,5247000,0,-3",
    side: int = 64,
) -> Maker:
    """A virtual raster over another file."""
    band = (
        f'<SimpleSource><SourceFilename relativeToVRT="{int(":" not in source)}">{source}'
        "</SourceFilename><SourceBand>1</SourceBand></SimpleSource>"
    )
    return text(
        name,
        f'<VRTDataset rasterXSize="{side}" rasterYSize="{side}"><SRS>{srs}</SRS>'
        f"<GeoTransform>{geotransform}</GeoTransform>"
        f'<VRTRasterBand dataType="Byte" band="1">{band}</VRTRasterBand></VRTDataset>',
    )


# Areas


def ring(west: float, south: float, east: float, north: float) -> list[list[float]]:
    return [[west, south], [east, south], [east, north], [west, north], [west, south]]


def area(name: str, document: Any) -> Maker:
    return text(name, json.dumps(document))


def polygon(name: str, points: Any, **more: Any) -> Maker:
    return area(name, {"type": "Polygon", "coordinates": [points], **more})


# Bundles: broken.c2gm is a copy of tiny.c2gm


def bundle(change: Callable[[Path], object]) -> Maker:
    """A copy of the good bundle, changed."""

    def make(folder: Path) -> None:
        shutil.copytree(folder / "tiny.c2gm", folder / "broken.c2gm")
        change(folder / "broken.c2gm")

    return make


def manifest(change: Callable[[dict[str, Any]], object]) -> Maker:
    """A bundle with another manifest."""
    return bundle(lambda copy: edit(copy, change))


def edit(copy: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = copy / MANIFEST_NAME
    document = json.loads(path.read_text(encoding="utf-8"))
    change(document)
    path.write_text(json.dumps(document), encoding="utf-8")


def sealed(graph: str, change: Callable[[Path], object]) -> Maker:
    """A bundle with a changed graph, and a manifest that vouches for it."""

    def make(copy: Path) -> None:
        change(copy / f"{graph}.onnx")
        spec = asdict(file_spec(copy, f"{graph}.onnx"))
        edit(copy, lambda d: d["graphs"][graph].update(files=[spec]))

    return bundle(make)


def embeddings(write: Callable[[Path], object]) -> Maker:
    """A bundle with another table of embeddings, and a manifest that vouches for it."""

    def make(copy: Path) -> None:
        write(copy / EMBEDDINGS_NAME)
        spec = asdict(file_spec(copy, EMBEDDINGS_NAME))
        edit(copy, lambda d: d.update(files=[spec]))

    return bundle(make)


def renamed_input(path: Path) -> None:
    """A graph one input of which has another name."""
    model = onnx.load(path)
    old = model.graph.input[0].name
    model.graph.input[0].name = "surprise"
    for node in model.graph.node:
        node.input[:] = ["surprise" if name == old else name for name in node.input]
    onnx.save(model, path)


def external_data(location: str) -> Callable[[Path], None]:
    """A graph that has one of its weights in a file elsewhere."""

    def change(path: Path) -> None:
        model = onnx.load(path)
        weight = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
        size = len(weight.raw_data)
        weight.ClearField("raw_data")
        weight.data_location = onnx.TensorProto.EXTERNAL
        for key, value in (("location", location), ("offset", "0"), ("length", str(size))):
            weight.external_data.add(key=key, value=value)
        path.write_bytes(model.SerializeToString())
        (path.parent.parent / "secret").write_bytes(bytes(size))

    return change


def pickled(path: Path) -> None:
    """Embeddings with an object that runs a command when it is unpickled."""

    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(path.parent.parent / "sprung"),)

    states = np.zeros((1, 5, 3), np.float32)
    np.savez(path, prompts=np.array([Trap()], dtype=object), states=states, pooled=states[:, 0])


def absurd_shape(path: Path) -> None:
    """Embeddings whose header declares terabytes, over nothing."""
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("prompts", "states", "pooled"):
            with archive.open(f"{name}.npy", "w") as file:
                header = {"descr": "<f4", "fortran_order": False, "shape": (1 << 40, 77, 1024)}
                np.lib.format.write_array_header_1_0(file, header)


def zip_bomb(path: Path) -> None:
    """Embeddings that unpack to a gigabyte of zeros from a megabyte."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("prompts", "states", "pooled"):
            with archive.open(f"{name}.npy", "w") as file:
                shape = (1 << 28,)
                header = {"descr": "<f4", "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(file, header)
                for _ in range((4 << 28) >> 24):
                    file.write(bytes(1 << 24))


# Partial files of out.mbtiles


def begun(folder: Path) -> None:
    """What a run with another seed left behind."""
    with closing(sqlite3.connect(folder / "out.mbtiles.partial")) as file, file:
        file.execute("PRAGMA journal_mode=WAL")
        file.execute("CREATE TABLE metadata (name TEXT PRIMARY KEY, value TEXT NOT NULL)")
        row = ("c2gm_fingerprint", json.dumps({"seed": "7"}))
        file.execute("INSERT INTO metadata VALUES (?, ?)", row)
