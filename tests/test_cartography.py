"""Maps drawn from vectors: real GeoPackages in, pixels out."""

from itertools import combinations
from pathlib import Path

import mercantile
import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from c2gm.model.maps.cartography import (
    BACKGROUND,
    PALETTE,
    Cartographer,
    VectorLayer,
    VectorMap,
    read_vectors,
    write_vectors,
)
from c2gm.runtime.errors import DataError, LevelError

HALF_WORLD_M = np.pi * 6378137.0
X0, Y0 = 1_060_000.0, 5_930_000.0  # south-west corner of the little world, EPSG:3857


def _layer(*features: tuple[str, shapely.Geometry]) -> VectorLayer:
    geometry = np.array([shape for _, shape in features], dtype=object)
    return VectorLayer(
        geometry=shapely.transform(geometry, lambda xy: xy + (X0, Y0)),
        kind=np.array([kind for kind, _ in features]),
    )


def _line(*points: tuple[float, float]) -> shapely.LineString:
    return shapely.LineString(points)


@pytest.fixture(scope="module")
def world() -> VectorMap:
    """Ground of 4 x 4 km, x and y in metres from its south-west corner."""
    houses = [
        ("building", shapely.box(x, y, x + 12, y + 10))
        for x in range(2000, 2600, 20)
        for y in range(2000, 2400, 25)
    ]
    return {
        "landcover": _layer(
            ("wood", shapely.box(0, 2500, 1500, 4000)),
            ("wood", shapely.box(1500, 2500, 1900, 4000)),  # cut at x = 1500
            ("grass", shapely.box(3000, 3000, 3010, 3010)),
        ),
        "water": _layer(("lake", shapely.Point(3300, 1000).buffer(400))),
        "waterway": _layer(("stream", _line((0, 300), (1500, 700), (2900, 1000)))),
        "transportation": _layer(
            ("motorway", _line((0, 1500), (4000, 1500))),
            ("secondary", _line((1000, 0), (1000, 2400))),
            ("minor", _line((1000, 1900), (2900, 1900))),
            ("path", _line((200, 200), (800, 1200))),
        ),
        "building": _layer(*houses, ("building", shapely.box(500, 2000, 540, 2030))),
    }


@pytest.fixture(scope="module")
def cartographer(world: VectorMap, tmp_path_factory: pytest.TempPathFactory) -> Cartographer:
    path = tmp_path_factory.mktemp("vectors") / "world.gpkg"
    write_vectors(path, world)
    return Cartographer(read_vectors(path))


def _pixel(level: int, x: float, y: float) -> tuple[int, int]:
    scale = 256 * 2**level / (2 * HALF_WORLD_M)
    return int((X0 + x + HALF_WORLD_M) * scale), int((HALF_WORLD_M - Y0 - y) * scale)


def _around(drawer: Cartographer, level: int, x: float, y: float, reach: int) -> NDArray[np.uint8]:
    left, top = _pixel(level, x, y)
    return drawer.draw(level, left - reach, top - reach, 2 * reach + 1, 2 * reach + 1)


def _shows(image: NDArray[np.uint8], name: str) -> bool:
    return bool((image == PALETTE[name]).all(axis=2).any())


def test_classes_can_be_told_apart_by_colour() -> None:
    for one, other in combinations(PALETTE, 2):
        distance = np.linalg.norm(np.subtract(PALETTE[one], PALETTE[other]))
        assert distance >= 12, f"{one} and {other}"


@pytest.mark.parametrize(
    ("spot", "colour", "first_level"),
    [
        ((3500, 1500), "motorway", 10),
        ((1000, 1000), "secondary", 12),
        ((2700, 1900), "street", 14),
        ((500, 700), "path", 16),
        ((520, 2015), "building", 15),
        ((3300, 1000), "water", 10),
        ((700, 3000), "wood", 10),
    ],
)
def test_a_class_shows_from_its_level_on(
    cartographer: Cartographer, spot: tuple[float, float], colour: str, first_level: int
) -> None:
    for level in range(max(10, first_level - 2), 19):
        image = _around(cartographer, level, *spot, reach=3)
        near = np.abs(image.astype(int) - PALETTE[colour]).sum(axis=2).min()
        # Below two pixels of width anti-aliasing may leave no pure pixel.
        assert (near < 130 if level < 17 else near == 0) or level < first_level
        assert not (level < first_level and _shows(image, colour))


def test_houses_become_blocks_and_then_built_up_ground(cartographer: Cartographer) -> None:
    for level, colour in [
        (11, "residential"),
        (13, "residential"),
        (14, "block"),
        (16, "building"),
    ]:
        image = _around(cartographer, level, 2306, 2205, reach=2)
        assert _shows(image, colour), f"level {level}"


def test_small_areas_are_left_out(cartographer: Cartographer) -> None:
    assert not _shows(_around(cartographer, 14, 3005, 3005, reach=8), "grass")
    assert _shows(_around(cartographer, 17, 3005, 3005, reach=8), "grass")


def test_areas_cut_at_a_tile_border_show_no_cut(cartographer: Cartographer) -> None:
    for level in (12, 15, 18):
        image = _around(cartographer, level, 1500, 3200, reach=5)
        assert (image == PALETTE["wood"]).all()


def test_empty_ground_is_background(cartographer: Cartographer) -> None:
    assert (_around(cartographer, 15, -9000, -9000, reach=20) == BACKGROUND).all()


@settings(max_examples=15, deadline=None)
@given(
    level=st.sampled_from([12, 14, 16]),
    dx=st.integers(-700, 700),
    dy=st.integers(-700, 700),
    width=st.integers(1, 600),
    height=st.integers(1, 600),
)
def test_a_pixel_does_not_depend_on_its_window(
    cartographer: Cartographer, level: int, dx: int, dy: int, width: int, height: int
) -> None:
    left, top = _pixel(level, 2000, 2000)
    left, top = left + dx, top + dy
    whole = cartographer.draw(level, left, top, width, height)
    x, y = width // 3, height // 2
    part = cartographer.draw(level, left + x, top + y, width - x, height - y)
    np.testing.assert_array_equal(whole[y:, x:], part)


def test_blocks_join_without_seams(cartographer: Cartographer) -> None:
    """The motorway runs level: along the middle of it no pixel may change."""
    left, top = _pixel(16, 200, 1500)
    row = cartographer.draw(16, left, top, 600, 1)
    assert (row == PALETTE["motorway"]).all()


def test_a_tile_is_its_window(cartographer: Cartographer) -> None:
    left, top = _pixel(15, 2000, 2000)
    tile = mercantile.Tile(left // 256, top // 256, 15)
    window = cartographer.draw(15, tile.x * 256, tile.y * 256, 256, 256)
    np.testing.assert_array_equal(cartographer.draw_tile(tile), window)


def test_drawing_is_deterministic(world: VectorMap, cartographer: Cartographer) -> None:
    left, top = _pixel(14, 0, 4000)
    again = Cartographer(world).draw(14, left, top, 300, 300)
    np.testing.assert_array_equal(again, cartographer.draw(14, left, top, 300, 300))


def test_vectors_survive_a_round_trip_and_can_be_shifted(world: VectorMap, tmp_path: Path) -> None:
    path = tmp_path / "world.gpkg"
    write_vectors(path, world)
    shifted = read_vectors(path, shift_m=(10.0, -5.0))
    assert shifted.keys() == world.keys()
    for name, layer in world.items():
        moved = shapely.transform(layer.geometry, lambda xy: xy + (10.0, -5.0))
        assert shapely.equals_exact(moved, shifted[name].geometry, tolerance=1e-6).all()
        assert (layer.kind == shifted[name].kind).all()


def test_geojson_in_degrees_is_reprojected(tmp_path: Path) -> None:
    path = tmp_path / "road.geojson"
    path.write_text(
        '{"type":"FeatureCollection","features":[{"type":"Feature","properties":'
        '{"layer":"transportation","class":"motorway","ramp":1},"geometry":'
        '{"type":"LineString","coordinates":[[9.5,47.0],[9.6,47.0]]}}]}'
    )
    road = read_vectors(path)["transportation"]
    assert road.kind.tolist() == ["motorway_link"]
    np.testing.assert_allclose(
        shapely.get_coordinates(road.geometry)[0], mercantile.xy(9.5, 47.0), atol=0.01
    )


def test_wrong_inputs_say_what_is_wrong(world: VectorMap, tmp_path: Path) -> None:
    with pytest.raises(LevelError, match="level 9"):
        Cartographer(world).draw(9, 0, 0, 1, 1)
    with pytest.raises(DataError, match="roads"):
        Cartographer({"roads": world["water"]})
    with pytest.raises(DataError, match="cannot read"):
        read_vectors(tmp_path / "missing.gpkg")
