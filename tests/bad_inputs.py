"""The table of bad inputs: what somebody may hand to `c2gm-infer`, and what it answers.

A row: how the input is made, what is changed in a good command, the exit code, and the line on
stderr after `c2gm-infer: error: `. `{f}` is the case's folder; `...` stands for a library's words.
A flag in the row replaces that of the good command; `-FLAG` takes it away. What else must hold for
every row (one line, nothing written, no long wait) stands in test_bad_inputs.py.
"""

import os
import shutil

import numpy as np
from bad_files import (
    HERE,
    Maker,
    absurd_shape,
    area,
    begun,
    both,
    bundle,
    control_points,
    cut,
    edit,
    embeddings,
    external_data,
    flipped,
    folder_named,
    huge,
    link,
    manifest,
    nothing,
    pickled,
    pipe,
    polygon,
    raster,
    raw,
    renamed_input,
    ring,
    sealed,
    sparse,
    text,
    vrt,
    zeroed_jpeg,
    zip_bomb,
)
from rasterio.transform import Affine, from_origin

Row = tuple[Maker, str, int, str]

GOOD = "--imagery {f}/scene.tif --levels 14-15 --model {f}/tiny.c2gm --output {f}/out.mbtiles"

NAN, INF = float("nan"), float("inf")
FAR = ring(30, 10, 31, 11)
SWAPPED = [[y, x] for x, y in ring(*HERE)]
AOI = "give a GeoJSON file with polygons in degrees, or use --bounds"
ENDS = "copy or download it again"
NOT_A_RASTER = "is not a raster that GDAL can read, or it is truncated (...); give a GeoTIFF or another georeferenced raster"
NO_CRS = (
    "has no coordinate system; georeference it, for example gdalwarp -t_srs EPSG:3857 IN OUT, or "
    "gdal_edit.py -a_srs EPSG:CODE FILE if its coordinates are right"
)
NO_PLACE = "has no georeference (its geotransform is ...); add a world file, or georeference it with gdal_translate -a_ullr"
ANEW = "export the bundle again"
LEVELS = "expected a range like 10-16 or a list like 10,12,14; give the coarser level first"
BOUNDS = "expected west,south,east,north in degrees"
DEGREES = "longitudes from -180 to 180, latitudes from -90 to 90"
HELP = "see c2gm-infer --help"

SCENE: dict[str, Row] = {
    "missing": (nothing, "--imagery {f}/no.tif", 3, "{f}/no.tif does not exist; check the path"),
    "an address": (
        nothing, "--imagery https://example.org/a.tif", 3,
        "https:/example.org/a.tif is an address, and c2gm works without a network; download the file and name it",
    ),
    "a GDAL network path": (
        nothing, "--imagery /vsicurl/http://127.0.0.1:9/a.tif", 3,
        "/vsicurl/http:/127.0.0.1:9/a.tif is an address, and c2gm works without a network; download the file and name it",
    ),
    "a folder": (folder_named("x"), "--imagery {f}/x", 3, "{f}/x is a folder, expected a raster file; name the file in it"),
    "a named pipe": (pipe("p.tif"), "--imagery {f}/p.tif", 3, "{f}/p.tif is not a file, expected a raster; write it to disk first"),
    "a device": (nothing, "--imagery /dev/zero", 3, "/dev/zero is not a file, expected a raster; write it to disk first"),
    "empty": (raw("e.tif", b""), "--imagery {f}/e.tif", 3, f"{{f}}/e.tif is empty (0 bytes); {ENDS}"),
    "text called tif": (text("t.tif"), "--imagery {f}/t.tif", 3, f"{{f}}/t.tif {NOT_A_RASTER}"),
    "GeoJSON": (polygon("a.geojson", ring(*HERE)), "--imagery {f}/a.geojson", 3, f"{{f}}/a.geojson {NOT_A_RASTER}"),
    "a link to itself": (link("l.tif", "l.tif"), "--imagery {f}/l.tif", 3, "{f}/l.tif does not exist; check the path"),
    "a name too long": (nothing, f"--imagery {{f}}/{'n' * 300}.tif", 3, f"{{f}}/{'n' * 300}.tif does not exist; check the path"),
    "header cut": (cut("c.tif", 0.0001), "--imagery {f}/c.tif", 3, f"{{f}}/c.tif {NOT_A_RASTER}"),
    "truncated": (cut("c.tif", 0.7), "--imagery {f}/c.tif", 3, f"{{f}}/c.tif is damaged or truncated (...); {ENDS}"),
    "a damaged block": (flipped("d.tif"), "--imagery {f}/d.tif", 3, f"{{f}}/d.tif is damaged or truncated (...); {ENDS}"),
    "forty damaged bytes in a JPEG block": (zeroed_jpeg("j.tif", 40, 255), "--imagery {f}/j.tif", 3, f"{{f}}/j.tif is damaged or truncated (...); {ENDS}"),
    "a damaged JPEG block": (zeroed_jpeg("j.tif"), "--imagery {f}/j.tif", 3, f"{{f}}/j.tif is damaged or truncated (...); {ENDS}"),
    "only ground control points": (
        control_points("g.tif"), "--imagery {f}/g.tif", 3,
        "{f}/g.tif has only ground control points; georeference it, for example gdalwarp -t_srs EPSG:3857 IN OUT, or "
        "gdal_edit.py -a_srs EPSG:CODE FILE if its coordinates are right",
    ),
    "no CRS": (raster("a.tif", crs=None), "--imagery {f}/a.tif", 3, f"{{f}}/a.tif {NO_CRS}"),
    "a local CRS": (
        vrt("a.vrt", srs='LOCAL_CS["site",UNIT["metre",1]]'), "--imagery {f}/a.vrt", 3,
        "{f}/a.vrt does not lie on the Earth in its coordinate system (a CRS without a code); check its georeference with gdalinfo",
    ),
    "an unknown CRS": (vrt("a.vrt", srs="EPSG:999999"), "--imagery {f}/a.vrt", 3, f"{{f}}/a.vrt {NO_CRS}"),
    "identity geotransform": (raster("a.tif", transform=Affine.identity()), "--imagery {f}/a.tif", 3, f"{{f}}/a.tif {NO_PLACE}"),
    "pixels of no size": (vrt("a.vrt", geotransform="465000,0,0,5247000,0,0"), "--imagery {f}/a.vrt", 3, f"{{f}}/a.vrt {NO_PLACE}"),
    "NaN geotransform": (vrt("a.vrt", geotransform="nan,3,0,5247000,0,-3"), "--imagery {f}/a.vrt", 3, f"{{f}}/a.vrt {NO_PLACE}"),
    "infinite geotransform": (vrt("a.vrt", geotransform="465000,inf,0,5247000,0,-3"), "--imagery {f}/a.vrt", 3, f"{{f}}/a.vrt {NO_PLACE}"),
    "off the Earth": (
        raster("a.tif", transform=from_origin(1e12, 1e12, 1e9, 1e9)), "--imagery {f}/a.tif", 3,
        "{f}/a.tif does not lie on the Earth in its coordinate system (EPSG:32632); check its georeference with gdalinfo",
    ),
    "at the pole": (
        raster("a.tif", crs="EPSG:3413", transform=from_origin(-1e4, 1e4, 300, 300)), "--imagery {f}/a.tif", 3,
        "{f}/a.tif lies outside the web-mercator world (beyond 85.05 degrees north or south); choose imagery nearer to the equator",
    ),
    "two bands": (
        raster("a.tif", bands=2), "--imagery {f}/a.tif", 3,
        "{f}/a.tif has 2 bands (gray, undefined), expected grey, grey and alpha, or at least three colours; choose bands with gdal_translate -b",
    ),
    "complex pixels": (
        raster("a.tif", bands=1, dtype="complex64"), "--imagery {f}/a.tif", 3,
        "{f}/a.tif has complex64 pixels, expected integers or floats; convert them, complex ones to amplitudes",
    ),
    "all nodata": (
        raster("a.tif", np.zeros((3, 64, 64)), nodata=0), "--imagery {f}/a.tif", 3,
        "{f}/a.tif has no valid pixel, all of it is nodata; choose another scene",
    ),
    "all black": (
        raster("a.tif", np.zeros((3, 64, 64))), "--imagery {f}/a.tif", 3,
        "{f}/a.tif is black all over; choose another scene, or give --keep-filling",
    ),
    "all not-a-number": (
        raster("a.tif", np.full((3, 64, 64), NAN), dtype="float32"), "--imagery {f}/a.tif", 3,
        "{f}/a.tif has no valid pixel, all of it is nodata; choose another scene",
    ),
    "all infinite": (
        raster("a.tif", np.full((3, 64, 64), INF), dtype="float32"), "--imagery {f}/a.tif", 3,
        "{f}/a.tif has no valid pixel, all of it is nodata; choose another scene",
    ),
    "terabytes declared, kilobytes there": (
        huge("h.tif", 600_000, 4096), "--imagery {f}/h.tif", 3,
        "{f}/h.tif declares 600000 x 600000 pixels (1080.0 GB) but is ... MB small: next to nothing is in it; cut out what is, with gdalwarp -te",
    ),
    "wider than any scene": (
        vrt("w.vrt", side=2_000_000_000), "--imagery {f}/w.vrt", 3,
        "{f}/w.vrt has 2000000000 x 2000000000 pixels, expected 1000000 a side at most; cut out a part with gdal_translate -srcwin",
    ),
    "one block of gigabytes": (
        huge("b.tif", 32_768, 32_768), "--imagery {f}/b.tif", 3,
        "{f}/b.tif is stored in blocks of 32768 x 32768 pixels (3.2 GB each), expected at most 1.1 GB; tile it with gdal_translate -co TILED=YES",
    ),
    "VRT over a missing file": (vrt("a.vrt", "no.tif"), "--imagery {f}/a.vrt", 3, f"{{f}}/a.vrt is damaged or truncated (...no.tif...); {ENDS}"),
    "VRT over itself": (vrt("a.vrt", "a.vrt"), "--imagery {f}/a.vrt", 3, f"{{f}}/a.vrt is damaged or truncated (...); {ENDS}"),
    "VRT over an address": (
        vrt("a.vrt", "/vsicurl/http://127.0.0.1:9/b.tif"), "--imagery {f}/a.vrt", 3,
        "{f}/a.vrt refers to /vsicurl/http://127.0.0.1:9/b.tif, and c2gm works without a network; download that and refer to the copy",
    ),
}  # fmt: skip

LEVEL: dict[str, Row] = {
    "none": (nothing, "--levels ''", 2, f"--levels is '', {LEVELS}"),
    "one end missing": (nothing, "--levels 10-", 2, f"--levels is '10-', {LEVELS}"),
    "negative": (nothing, "--levels=-3", 2, f"--levels is '-3', {LEVELS}"),
    "backwards": (nothing, "--levels 16-10", 2, f"--levels is '16-10', {LEVELS}"),
    "backwards, and the output exists": (text("out.mbtiles"), "--levels 16-10", 2, f"--levels is '16-10', {LEVELS}"),
    "words": (nothing, "--levels ten", 2, f"--levels is 'ten', {LEVELS}"),
    "a comma too many": (nothing, "--levels 14,,15", 2, f"--levels is '14,,15', {LEVELS}"),
    "other digits": (nothing, "--levels １４", 2, f"--levels is '１４', {LEVELS}"),
    "a fraction": (nothing, "--levels 14.5", 2, f"--levels is '14.5', {LEVELS}"),
    "endless": (nothing, f"--levels {'14-15,' * 5000}", 2, f"--levels is '14-15,14-15,...', {LEVELS}"),
    "coarser than trained": (
        nothing, "--levels 3-5", 5,
        "levels 3-5 are outside what the model 'tiny' was trained on (10-18); choose --levels among these",
    ),
    "finer than trained": (
        nothing, "--levels 10-99", 5,
        "levels 19-99 are outside what the model 'tiny' was trained on (10-18); choose --levels among these",
    ),
    "far finer than the scene": (
        raster("c.tif", transform=from_origin(465_000, 5_247_000, 30, 30)), "--levels 18 --imagery {f}/c.tif", 5,
        "level 18 is 6 finer than what c.tif shows (level 12, 44.30 m at the equator); choose --levels up to 15",
    ),
}  # fmt: skip

AREA: dict[str, Row] = {
    "missing": (nothing, "--aoi {f}/no.geojson", 4, f"{{f}}/no.geojson does not exist; {AOI}"),
    "a folder": (folder_named("x"), "--aoi {f}/x", 4, f"{{f}}/x is not a file; {AOI}"),
    "a device": (nothing, "--aoi /dev/zero", 4, f"/dev/zero is not a file; {AOI}"),
    "a named pipe": (pipe("p"), "--aoi {f}/p", 4, f"{{f}}/p is not a file; {AOI}"),
    "empty": (raw("a.geojson", b""), "--aoi {f}/a.geojson", 4, f"{{f}}/a.geojson is not JSON (Expecting value: line 1 column 1 (char 0)); {AOI}"),
    "not JSON": (text("a.geojson", "{"), "--aoi {f}/a.geojson", 4, f"{{f}}/a.geojson is not JSON (...); {AOI}"),
    "not text": (raw("a.geojson", b"\xff\xfe\0"), "--aoi {f}/a.geojson", 4, f"{{f}}/a.geojson is not JSON (...); {AOI}"),
    "deeply nested": (text("a.geojson", "[" * 200_000), "--aoi {f}/a.geojson", 4, f"{{f}}/a.geojson is not JSON (...); {AOI}"),
    "nested collections": (
        text("a.geojson", '{"type":"GeometryCollection","geometries":[' * 200 + "]}" * 200), "--aoi {f}/a.geojson", 4,
        f"{{f}}/a.geojson is not valid GeoJSON (collections within collections); {AOI}",
    ),
    "a number of digits": (text("a.geojson", "9" * 9000), "--aoi {f}/a.geojson", 4, f"{{f}}/a.geojson is not JSON (...); {AOI}"),
    "100 MB": (sparse("a.geojson", 100_000_000), "--aoi {f}/a.geojson", 4, "{f}/a.geojson is over 64 MB; simplify its polygons"),
    "a list": (area("a.geojson", [1]), "--aoi {f}/a.geojson", 4, f"{{f}}/a.geojson is not valid GeoJSON (found list, expected an object with a type); {AOI}"),
    "no type": (area("a.geojson", {}), "--aoi {f}/a.geojson", 4, f"{{f}}/a.geojson is not valid GeoJSON ('type' is missing); {AOI}"),
    "an unknown type": (area("a.geojson", {"type": "Circle"}), "--aoi {f}/a.geojson", 4, f"{{f}}/a.geojson is not valid GeoJSON (unknown type 'Circle'); {AOI}"),
    "TopoJSON": (area("a.json", {"type": "Topology", "arcs": []}), "--aoi {f}/a.json", 4, f"{{f}}/a.json is not valid GeoJSON (unknown type 'Topology'); {AOI}"),
    "no features": (area("a.geojson", {"type": "FeatureCollection", "features": []}), "--aoi {f}/a.geojson", 4, f"{{f}}/a.geojson holds no polygon; {AOI}"),
    "features of another type": (
        area("a.geojson", {"type": "FeatureCollection", "features": 3}), "--aoi {f}/a.geojson", 4,
        f"{{f}}/a.geojson is not valid GeoJSON (...); {AOI}",
    ),
    "a point": (area("a.geojson", {"type": "Point", "coordinates": [8.54, 47.37]}), "--aoi {f}/a.geojson", 4, f"{{f}}/a.geojson holds no polygon; {AOI}"),
    "a line": (polygon("a.geojson", [[8, 47], [9, 47], [8, 47], [8, 47]]), "--aoi {f}/a.geojson", 4, f"{{f}}/a.geojson holds polygons without an area; {AOI}"),
    "two corners": (polygon("a.geojson", [[8, 47], [9, 48]]), "--aoi {f}/a.geojson", 4, f"{{f}}/a.geojson is not valid GeoJSON (a polygon's ring has less than four points); {AOI}"),
    "no coordinates": (area("a.geojson", {"type": "Polygon"}), "--aoi {f}/a.geojson", 4, f"{{f}}/a.geojson is not valid GeoJSON ('coordinates' is missing); {AOI}"),
    "corners in words": (polygon("a.geojson", ["12", "34", "56", "78"]), "--aoi {f}/a.geojson", 4, f"{{f}}/a.geojson is not valid GeoJSON (a point is '12', expected [longitude, latitude]); {AOI}"),
    "NaN corners": (polygon("a.geojson", [[NAN, 47]] * 4), "--aoi {f}/a.geojson", 4, f"{{f}}/a.geojson is not valid GeoJSON (nan, 47 are not degrees); {AOI}"),
    "infinite corners": (polygon("a.geojson", [[8, INF]] * 4), "--aoi {f}/a.geojson", 4, f"{{f}}/a.geojson is not valid GeoJSON (8, inf are not degrees); {AOI}"),
    "metres": (
        polygon("a.geojson", ring(465_000, 5_246_000, 466_000, 5_247_000)), "--aoi {f}/a.geojson", 4,
        f"{{f}}/a.geojson is not valid GeoJSON (465000, 5.246e+06 are not degrees); {AOI}",
    ),
    "elsewhere": (
        polygon("a.geojson", FAR), "--aoi {f}/a.geojson", 4,
        "the area 30.00000 .. 10.00000 .. 31.00000 .. 11.00000 misses the scene's data at ... (west .. south .. east .. north, degrees); choose an area inside",
    ),
    "swapped": (
        polygon("a.geojson", SWAPPED), "--aoi {f}/a.geojson", 4,
        "the area 47.36730 .. 8.53520 .. ... misses the scene's data at ... (west .. south .. east .. north, degrees); longitude and latitude are swapped, give longitude first",
    ),
    "an unknown CRS": (
        polygon("a.geojson", ring(*HERE), crs={"properties": {"name": "EPSG:999999"}}), "--aoi {f}/a.geojson", 4,
        f"{{f}}/a.geojson cannot be projected to degrees (...); {AOI}",
    ),
    "a CRS by address": (
        polygon("a.geojson", ring(*HERE), crs={"properties": {"name": "http://127.0.0.1:9/crs"}}), "--aoi {f}/a.geojson", 4,
        f"{{f}}/a.geojson is not valid GeoJSON (its CRS is 'http://127.0.0.1:9/crs', expected a code as EPSG:3857); {AOI}",
    ),
    "bounds of three": (nothing, "--bounds 8.5,47.3,8.6", 2, f"--bounds is '8.5,47.3,8.6', {BOUNDS}, as 8.5,47.3,8.6,47.4"),
    "bounds in words": (nothing, "--bounds here", 2, f"--bounds is 'here', {BOUNDS}, as 8.5,47.3,8.6,47.4"),
    "bounds upside down": (nothing, "--bounds 8,48,9,47", 2, f"--bounds is 8,48,9,47, {BOUNDS}, south below north"),
    "bounds in metres": (nothing, "--bounds 465000,5246000,466000,5247000", 2, f"--bounds is 465000,5.246e+06,466000,5.247e+06, {BOUNDS}: {DEGREES}"),
    "bounds of NaN": (nothing, "--bounds nan,47,9,48", 2, f"--bounds is nan,47,9,48, {BOUNDS}: {DEGREES}"),
    "bounds with west and east swapped": (nothing, "--bounds 9,47,8,48", 2, "--bounds is 9,47,8,48, west east of east: across the antimeridian that is a box of 359 degrees; give west,south,east,north"),
    "bounds without width": (nothing, "--bounds 8,47,8,48", 2, "--bounds has no width, west and east are both 8; give west,south,east,north"),
    "bounds across the antimeridian": (
        nothing, "--bounds 170,47,-170,48", 4,
        "the area -180.00000 .. 47.00000 .. 180.00000 .. 48.00000 misses the scene's data at ...; choose an area inside",
    ),
    "bounds elsewhere": (
        nothing, "--bounds 0,0,1,1", 4,
        "the area 0.00000 .. 0.00000 .. 1.00000 .. 1.00000 misses the scene's data at ... (west .. south .. east .. north, degrees); choose an area inside",
    ),
    "bounds swapped": (
        nothing, "--bounds 47.3673,8.5352,47.3739,8.5459", 4,
        "the area 47.36730 .. 8.53520 .. ...; longitude and latitude are swapped, give longitude first",
    ),
    "bounds and area": (nothing, "--bounds 8,47,9,48 --aoi x", 2, "both --bounds and --aoi are given; choose one"),
}  # fmt: skip

MODEL: dict[str, Row] = {
    "missing": (
        nothing, "--model {f}/no.c2gm", 6,
        "{f}/no.c2gm does not exist and is not the name of a shipped model; give a bundle's folder, or one of nano-int8, nano",
    ),
    "a file": (text("m.c2gm"), "--model {f}/m.c2gm", 6, "{f}/m.c2gm is not a model bundle: it has no manifest.json; give a folder NAME.c2gm that c2gm-export wrote"),
    "an empty folder": (folder_named("x"), "--model {f}/x", 6, "{f}/x is not a model bundle: it has no manifest.json; give a folder NAME.c2gm that c2gm-export wrote"),
    "no JSON": (bundle(lambda b: (b / "manifest.json").write_text("{")), "--model {f}/broken.c2gm", 6, f"{{f}}/broken.c2gm/manifest.json is not valid JSON (...); {ANEW}"),
    "a manifest of megabytes": (
        bundle(lambda b: (b / "manifest.json").write_bytes(b" " * (5 << 20))), "--model {f}/broken.c2gm", 6,
        "{f}/broken.c2gm/manifest.json is over 4194304 bytes, which no manifest is; give a folder NAME.c2gm that c2gm-export wrote",
    ),
    "a later format": (
        manifest(lambda d: d.update(format_version=2)), "--model {f}/broken.c2gm", 6,
        f"{{f}}/broken.c2gm/manifest.json has format version 2, this c2gm reads 1; {ANEW} with this version",
    ),
    "an unknown key": (manifest(lambda d: d.update(plugin="x.so")), "--model {f}/broken.c2gm", 6, f"{{f}}/broken.c2gm/manifest.json: manifest has unknown keys ['plugin']; {ANEW}"),
    "a missing key": (manifest(lambda d: d.pop("name")), "--model {f}/broken.c2gm", 6, f"{{f}}/broken.c2gm/manifest.json: manifest lacks the keys ['name']; {ANEW}"),
    "a key of another type": (
        manifest(lambda d: d.update(latent_channels="4")), "--model {f}/broken.c2gm", 6,
        f"{{f}}/broken.c2gm/manifest.json: manifest.latent_channels is '4', expected int; {ANEW}",
    ),
    "a trillion time steps": (
        manifest(lambda d: d["schedule"].update(train_timesteps=10**12)), "--model {f}/broken.c2gm", 6,
        f"{{f}}/broken.c2gm/manifest.json: train_timesteps is 1000000000000, expected 1 to 100000; {ANEW}",
    ),
    "a trillion channels": (
        manifest(lambda d: d.update(latent_channels=10**12)), "--model {f}/broken.c2gm", 6,
        f"{{f}}/broken.c2gm/manifest.json: latent_channels is 1000000000000, expected 1 to 1024; {ANEW}",
    ),
    "features of a petabyte": (
        manifest(lambda d: d["graphs"]["denoise"]["inputs"][7].update(shape=["b", 10**6, 10**6, 10**6])), "--model {f}/broken.c2gm", 6,
        "{f}/broken.c2gm/denoise.onnx: the inputs are not what the manifest says (...); export the bundle again",
    ),
    "an infinite number": (
        bundle(lambda b: edit(b, lambda d: d.update(scaling_factor=INF))), "--model {f}/broken.c2gm", 6,
        f"{{f}}/broken.c2gm/manifest.json: manifest.scaling_factor is not a finite number; {ANEW}",
    ),
    "a changed weight": (
        bundle(lambda b: (b / "denoise.onnx").write_bytes((b / "denoise.onnx").read_bytes()[:-1] + b"\0")), "--model {f}/broken.c2gm", 6,
        "{f}/broken.c2gm/denoise.onnx does not match its SHA-256; copy or export the bundle again",
    ),
    "half a graph": (
        bundle(lambda b: (b / "denoise.onnx").write_bytes(b"x")), "--model {f}/broken.c2gm", 6,
        "{f}/broken.c2gm/denoise.onnx has 1 bytes, the manifest says ...; copy or export it again",
    ),
    "a graph missing": (
        bundle(lambda b: (b / "denoise.onnx").unlink()), "--model {f}/broken.c2gm", 6,
        "{f}/broken.c2gm/denoise.onnx is missing from the bundle; copy or export it again",
    ),
    "a path upwards": (
        both(text("secret"), manifest(lambda d: d["graphs"]["denoise"]["files"][0].update(name="../secret"))), "--model {f}/broken.c2gm", 6,
        "{f}/broken.c2gm: file name '../secret' leaves the bundle; don't use it",
    ),
    "an absolute path": (
        manifest(lambda d: d["graphs"]["denoise"]["files"][0].update(name="/etc/passwd")), "--model {f}/broken.c2gm", 6,
        "{f}/broken.c2gm: file name '/etc/passwd' leaves the bundle; don't use it",
    ),
    "a link out of the folder": (
        bundle(lambda b: (shutil.move(b / "denoise.onnx", b.parent / "secret"), (b / "denoise.onnx").symlink_to("../secret"))), "--model {f}/broken.c2gm", 6,
        "{f}/broken.c2gm/denoise.onnx is missing from the bundle; copy or export it again",
    ),
    "a graph that is a pipe": (
        bundle(lambda b: ((b / "denoise.onnx").unlink(), os.mkfifo(b / "denoise.onnx"))), "--model {f}/broken.c2gm", 6,
        "{f}/broken.c2gm/denoise.onnx is missing from the bundle; copy or export it again",
    ),
    "no graph, but vouched for": (
        sealed("denoise", lambda p: p.write_bytes(b"hello")), "--model {f}/broken.c2gm", 6,
        f"{{f}}/broken.c2gm/denoise.onnx is not an ONNX file (...); {ANEW}",
    ),
    "weights in a file above": (
        sealed("denoise", external_data("../secret")), "--model {f}/broken.c2gm", 6,
        "{f}/broken.c2gm/denoise.onnx takes weights from '../secret', which is not a file that the bundle lists with this graph; don't use it",
    ),
    "weights in a file anywhere": (
        sealed("vae_decoder", external_data("/etc/passwd")), "--model {f}/broken.c2gm", 6,
        "{f}/broken.c2gm/vae_decoder.onnx takes weights from '/etc/passwd', which is not a file that the bundle lists with this graph; don't use it",
    ),
    "weights in a file of another graph": (
        sealed("denoise", external_data("vae_decoder.onnx")), "--model {f}/broken.c2gm", 6,
        "{f}/broken.c2gm/denoise.onnx takes weights from 'vae_decoder.onnx', which is not a file that the bundle lists with this graph; don't use it",
    ),
    "other input names": (
        sealed("denoise", renamed_input), "--model {f}/broken.c2gm", 6,
        "{f}/broken.c2gm/denoise.onnx: the inputs are not what the manifest says (...surprise...); export the bundle again",
    ),
    "embeddings with a pickle": (
        embeddings(pickled), "--model {f}/broken.c2gm", 6,
        f"{{f}}/broken.c2gm/scale_embeddings.npz cannot be read (prompts holds objects, expected plain numbers or text); {ANEW}",
    ),
    "embeddings of terabytes": (
        embeddings(absurd_shape), "--model {f}/broken.c2gm", 6,
        f"{{f}}/broken.c2gm/scale_embeddings.npz cannot be read (prompts declares ... bytes and holds 0); {ANEW}",
    ),
    "embeddings that are a bomb": (
        embeddings(zip_bomb), "--model {f}/broken.c2gm", 6,
        f"{{f}}/broken.c2gm/scale_embeddings.npz cannot be read (unpacked it has 3221225... bytes, expected 268435456 at most); {ANEW}",
    ),
    "no embeddings": (embeddings(lambda p: p.write_bytes(b"PK\3\4 cut")), "--model {f}/broken.c2gm", 6, f"{{f}}/broken.c2gm/scale_embeddings.npz cannot be read (...); {ANEW}"),
}  # fmt: skip

REFERENCE: dict[str, Row] = {
    "missing": (nothing, "--reference {f}/no.mbtiles", 10, "{f}/no.mbtiles does not exist; check the path"),
    "text": (text("r.mbtiles"), "--reference {f}/r.mbtiles", 10, f"{{f}}/r.mbtiles {NOT_A_RASTER}"),
    "a folder": (folder_named("x"), "--reference {f}/x", 10, "{f}/x is a folder, expected a raster file; name the file in it"),
    "a named pipe": (pipe("p"), "--reference {f}/p", 10, "{f}/p is not a file, expected a raster; write it to disk first"),
    "no CRS": (raster("r.tif", crs=None), "--reference {f}/r.tif", 10, f"{{f}}/r.tif {NO_CRS}"),
    "16 bits": (raster("r.tif", dtype="uint16"), "--reference {f}/r.tif", 10, "{f}/r.tif has uint16 pixels, expected a map with 8-bit colours; convert it with gdal_translate -ot Byte"),
    "elsewhere": (
        raster("r.tif", crs="EPSG:32601"), "--reference {f}/r.tif", 10,
        "{f}/r.tif and {f}/scene.tif do not overlap; give a map of the same ground, or leave --reference out",
    ),
    "of no use at these levels": (
        raster("r.tif"), "--reference {f}/r.tif --levels 10", 10,
        "--levels 10 cannot start from --reference: the model starts from maps of level 10 or finer; give --levels from 11 on, or leave --reference out",
    ),
    "truncated": (cut("r.tif", 0.7), "--reference {f}/r.tif", 10, f"{{f}}/r.tif is damaged or truncated (...); {ENDS}"),
}  # fmt: skip

OUTPUT: dict[str, Row] = {
    "exists": (text("out.mbtiles"), "", 8, "{f}/out.mbtiles exists; give another --output, or --overwrite to replace it"),
    "a folder": (folder_named("x.mbtiles"), "--output {f}/x.mbtiles", 8, "{f}/x.mbtiles is a folder, expected a file name; give --output FILE.mbtiles"),
    "no parent": (nothing, "--output {f}/no/x.mbtiles", 8, "{f}/no is not a folder; create it, or give another --output"),
    "parent is a file": (nothing, "--output {f}/scene.tif/x.mbtiles", 8, "{f}/scene.tif is not a folder; create it, or give another --output"),
    "where nothing can be written": (nothing, "--output /proc/x.mbtiles", 8, "/proc/x.mbtiles.partial cannot be written (unable to open database file); check folder and disk"),
    "no suffix": (nothing, "--output {f}/map", 2, "--output is {f}/map, expected a name ending in .mbtiles"),
    "another suffix": (nothing, "--output out.tif", 2, "--output is out.tif, expected a name ending in .mbtiles"),
    "no name": (nothing, "--output ''", 2, "--output is ., expected a name ending in .mbtiles"),
    "a name too long": (nothing, f"--output {{f}}/{'n' * 300}.mbtiles", 8, f"{{f}}/{'n' * 300}.mbtiles cannot be written (File name too long); give another --output"),
    "is the imagery": (
        lambda f: shutil.copy(f / "scene.tif", f / "in.mbtiles"), "--imagery {f}/in.mbtiles --output {f}/in.mbtiles --overwrite", 2,
        "{f}/in.mbtiles is also --imagery; give another --output",
    ),
    "is the reference": (raster("r.mbtiles"), "--reference {f}/r.mbtiles --output {f}/r.mbtiles --overwrite", 2, "{f}/r.mbtiles is also --reference; give another --output"),
    "is the area": (polygon("a.mbtiles", ring(*HERE)), "--aoi {f}/a.mbtiles --output {f}/a.mbtiles --overwrite", 2, "{f}/a.mbtiles is also --aoi; give another --output"),
    "is a link to the imagery": (
        link("l.mbtiles", "scene.tif"), "--output {f}/l.mbtiles --overwrite", 2,
        "{f}/l.mbtiles is also --imagery; give another --output",
    ),
    "its partial file is the imagery": (
        lambda f: shutil.copy(f / "scene.tif", f / "out.mbtiles.partial"), "--imagery {f}/out.mbtiles.partial --overwrite", 2,
        "{f}/out.mbtiles.partial is also --imagery; give another --output",
    ),
    "partial file of another run": (
        begun, "", 8,
        "{f}/out.mbtiles.partial was begun by another run (...seed was 7, now 0...); run that command to finish it, or start anew with --overwrite",
    ),
    "partial file damaged": (text("out.mbtiles.partial", "no database " * 200), "", 8, "{f}/out.mbtiles.partial is damaged (file is not a database); delete it, or start anew with --overwrite"),
    "partial file a folder": (folder_named("out.mbtiles.partial"), "", 8, "{f}/out.mbtiles.partial cannot be written (unable to open database file); check folder and disk"),
}  # fmt: skip

OPTION: dict[str, Row] = {
    "no imagery": (nothing, "-imagery", 2, f"Missing option '--imagery'; {HELP}"),
    "no levels": (nothing, "-levels", 2, f"Missing option '--levels'; {HELP}"),
    "imagery without a name": (nothing, "--imagery ''", 2, "--imagery is '.', expected the name of a raster"),
    "unknown flag": (nothing, "--imagry x", 2, f"No such option: --imagry ...; {HELP}"),
    "a word too many": (nothing, "please", 2, f"Got unexpected extra argument... (please); {HELP}"),
    "flag without a value": (nothing, "--seed", 2, f"Option '--seed' requires an argument; {HELP}"),
    "steps none": (nothing, "--steps 0", 2, "--steps is 0, expected 1 to 1000"),
    "steps many": (nothing, "--steps 10000", 2, "--steps is 10000, expected 1 to 1000"),
    "steps in words": (nothing, "--steps few", 2, f"Invalid value for '--steps': ...; {HELP}"),
    "batch": (nothing, "--batch 3", 2, "--batch is 3, expected one of 1, 2, 4, 8, 16"),
    "window": (nothing, "--window 3", 2, "--window is 3, expected one of 1, 2, 4"),
    "halo odd": (nothing, "--halo 7", 2, "--halo is 7, expected 0 to 128, half of --window 1, in steps of 32"),
    "halo wide": (nothing, "--halo 160", 2, "--halo is 160, expected 0 to 128, half of --window 1, in steps of 32"),
    "halo negative": (nothing, "--halo -32", 2, "--halo is -32, expected 0 to 128, half of --window 1, in steps of 32"),
    "seed negative": (nothing, "--seed -1", 2, "--seed is -1, expected 0 to 18446744073709551615"),
    "seed huge": (nothing, f"--seed {10**30}", 2, f"--seed is {10**30}, expected 0 to 18446744073709551615"),
    "seed in words": (nothing, "--seed abc", 2, f"Invalid value for '--seed': ...; {HELP}"),
    "cascade": (nothing, "--cascade 3x", 2, "--cascade is '3x', expected one of 4x, 2x"),
    "guide-from in words": (nothing, "--guide-from city", 2, f"Invalid value for '--guide-from': ...; {HELP}"),
    "guide-from beyond levels": (nothing, "--guide-from 99", 2, "--guide-from is 99, expected a level from 10 to 18"),
    "guide-from negative": (nothing, "--guide-from -1", 2, "--guide-from is -1, expected a level from 10 to 18"),
    "backend": (nothing, "--backend tpu", 2, "there is no backend 'tpu'; choose one of auto, tensorrt-rtx, tensorrt, cuda, openvino, onnxruntime"),
    "verify a file that is none": (nothing, "--verify {f}/no.mbtiles", 8, "{f}/no.mbtiles is not a file; give a map made by c2gm-infer"),
    "verify a scene": (nothing, "--verify {f}/scene.tif", 8, "{f}/scene.tif is no MBTiles file, or damaged (file is not a database); give a map that c2gm-infer or c2gm-publish wrote as MBTiles, or make it again"),
}  # fmt: skip

TABLE: dict[str, dict[str, Row]] = {
    "scene": SCENE,
    "levels": LEVEL,
    "area": AREA,
    "bundle": MODEL,
    "reference": REFERENCE,
    "output": OUTPUT,
    "option": OPTION,
}
