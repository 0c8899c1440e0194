"""Properties of everything that is read from others: refused with its error, or accepted.

The long run over the same readers is `c2gm-bench fuzz`; here hypothesis looks for small cases.
"""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from c2gm.benchmarks.fuzz import ACCEPTED, FINDINGS, in_a_process
from c2gm.benchmarks.fuzz_targets import Target, targets
from c2gm.runtime.area import read_area
from c2gm.runtime.errors import AreaError
from c2gm.runtime.onnx_files import external_files

NEEDS_FORK = pytest.mark.skipif(sys.platform != "linux", reason="forks, and limits memory")
KEYS = ("type", "features", "geometry", "geometries", "coordinates", "crs", "properties", "name")
TYPES = ("FeatureCollection", "Feature", "GeometryCollection", "MultiPolygon", "Polygon", "Point")
LEAVES = st.none() | st.booleans() | st.floats() | st.integers() | st.sampled_from(TYPES)
DOCUMENTS = st.recursive(
    LEAVES | st.lists(st.tuples(st.floats(-180, 180), st.floats(-90, 90)), max_size=5),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4)
    | st.builds(lambda kind, rest: {**rest, "type": kind}, st.sampled_from(TYPES),
                st.dictionaries(st.sampled_from(KEYS), inner, max_size=3)),
    max_leaves=12,
)  # fmt: skip
ONCE = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@settings(ONCE, max_examples=200)
@given(document=DOCUMENTS)
def test_any_json_is_an_area_or_refused(document: Any, tmp_path: Path) -> None:
    path = tmp_path / "area.geojson"
    path.write_text(json.dumps(document))
    try:
        parts = read_area(path)
    except AreaError as error:
        assert str(path) in str(error)
    else:
        assert parts and all(0 <= part.left < part.right <= 1 for part in parts)


@ONCE
@given(data=st.binary(min_size=1, max_size=200))
def test_any_bytes_are_a_graph_or_refused(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "graph.onnx"
    path.write_bytes(data)
    try:
        external_files(path)
    except ValueError as error:
        assert str(error)


@pytest.fixture(scope="module")
def made(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Target]:
    return dict(targets(tmp_path_factory.mktemp("fuzz"), tiny_bundle))


@NEEDS_FORK
@pytest.mark.parametrize("name", ["manifest", "embeddings", "scene", "ledger"])
@settings(ONCE, max_examples=20)
@given(
    edits=st.lists(st.tuples(st.integers(0, 1500), st.integers(0, 255)), min_size=1, max_size=6),
    kept=st.floats(0.5, 1.5),
)
def test_damaged_files_are_refused_or_read(
    name: str, made: dict[str, Target], edits: list[tuple[int, int]], kept: float
) -> None:
    """Each in a process of its own, with little memory and little time."""
    target = made[name]
    data = bytearray(target.good)
    for place, value in edits:
        data[place % len(data)] = value
    data = data[: int(kept * len(data))]
    assume(data != target.good)
    assert _read(target, bytes(data))[0] not in FINDINGS


@NEEDS_FORK
@pytest.mark.parametrize("name", ["manifest", "embeddings", "graph", "scene", "area", "ledger"])
def test_the_undamaged_file_is_accepted(name: str, made: dict[str, Target]) -> None:
    """Else the tests above, and `c2gm-bench fuzz`, would see nothing but refusals."""
    assert _read(made[name], made[name].good)[0] == ACCEPTED


def _read(target: Target, data: bytes) -> tuple[str, str]:
    target.place.write_bytes(data)
    try:
        outcome, said = in_a_process(target)
    finally:
        for path in target.place.parent.glob("map.mbtiles*"):
            path.unlink()
        target.place.write_bytes(target.good)
    return outcome, said
