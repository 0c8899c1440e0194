"""Ours and peers take turns; a ratio is within a round, and no core time is lost on the way."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mercantile import Tile
from typer.testing import CliRunner

from c2gm.benchmarks.cli import app
from c2gm.benchmarks.command_options import tell
from c2gm.benchmarks.core_time import IDLE, OTHER, split_core_time
from c2gm.benchmarks.profile import GROUPS, by, group_of, profile_graph, read_events
from c2gm.benchmarks.rounds import order, ratios_by_round
from c2gm.benchmarks.scenes import sheet_plan
from c2gm.benchmarks.sheet import GRAPH_PARTS, Manner, take_turns
from c2gm.benchmarks.tile_scores import TileScore, compare
from c2gm.runtime.bundle import Bundle
from c2gm.runtime.cpu import available_cores
from c2gm.runtime.errors import OutputError
from c2gm.runtime.infer import PARTS

TOWN = Path(__file__).parent / "data" / "town.tif"


@given(drift=st.lists(st.floats(0.2, 5), min_size=1, max_size=6))
def test_a_machines_drift_between_rounds_is_not_in_the_ratios(drift: list[float]) -> None:
    found = ratios_by_round({"a": [2 * d for d in drift], "b": [5 * d for d in drift]}, "a")
    spread = found["b"][1]
    assert spread.low == pytest.approx(2.5) and spread.high == pytest.approx(2.5)
    assert found["a"][1].median == 1


@given(count=st.integers(1, 7))
def test_over_two_rounds_everybody_runs_at_the_same_time_on_average(count: int) -> None:
    places = [order(count, number) for number in (0, 1)]
    assert all(sorted(found) == list(range(count)) for found in places)
    assert {places[0].index(i) + places[1].index(i) for i in range(count)} == {count - 1}


def test_every_manner_runs_in_every_round_and_the_fastest_of_ours_is_1() -> None:
    ran: list[str] = []

    def manner(title: str, seconds: float, ours: bool) -> Manner:
        def run() -> dict[str, object]:
            ran.append(title)
            core = dict.fromkeys(GRAPH_PARTS, seconds / 2) | {IDLE: seconds / 2}
            mine = {"backend": "onnxruntime", "core_s": core} if ours else {}
            return {"tiles": 10, "wall_s": seconds * len(ran)} | mine

        return Manner(title, ours, run)

    manners = [manner("slow", 3, True), manner("fast", 2, True), manner("peer", 1, False)]
    found = take_turns(manners, 3, lambda line: None)
    assert ran == ["slow", "fast", "peer", "peer", "fast", "slow", "slow", "fast", "peer"]
    assert len(found["rounds"]) == 9
    slow, fast, peer = found["manners"]
    assert fast["ratio"] == {"median": 1, "low": 1, "high": 1}, "of ours, though a peer is faster"
    # Rounds of slow / fast / peer: 3, 4, 3 then 18, 10, 4 then 21, 16, 9.
    assert slow["ratio"] == {"median": 1.3125, "low": 0.75, "high": 1.8}
    assert peer["ms_per_tile"] == {"median": 400, "low": 300, "high": 900}
    assert fast["graph_share"] == 0.75 and "graph_share" not in peer


@given(parts=st.dictionaries(st.sampled_from(PARTS), st.floats(0, 50)), wall=st.floats(1, 100))
def test_the_parts_are_all_of_the_cores_time(parts: dict[str, float], wall: float) -> None:
    split = split_core_time(
        cores=2, wall_s=wall, processor_s=1.5 * wall, parts=parts, start_s=0.5, check_s=0.2
    )
    assert sum(split.values()) == pytest.approx(2 * wall)
    assert split[IDLE] == pytest.approx(0.5 * wall)


def test_a_real_sheet_is_split_by_measurement(tiny_bundle: Path, tmp_path: Path) -> None:
    output = tmp_path / "sheet.json"
    arguments = ["sheet", "--imagery", str(TOWN), "--models", str(tiny_bundle), "--tiles", "25"]
    arguments += ["--backends", "onnxruntime", "--rounds", "2", "--output", str(output)]
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0 and "cores without work" in done.stdout
    document = json.loads(output.read_text(encoding="utf-8"))
    assert [row["round"] for row in document["rounds"]] == [1, 2]
    planned = sheet_plan(tiles=25)
    for row in document["rounds"]:
        assert row["tiles"] == sum(planned.tile_count(level) for level in planned.levels)
        assert sum(row["core_s"].values()) == pytest.approx(available_cores() * row["wall_s"])
        assert set(row["core_s"]) == {*PARTS, "start", "check", OTHER, IDLE}
        # Interpreter and imports; all of the rest is no more than the whole process took.
        assert 0.1 < row["core_s"]["start"] < row["processor_s"]
        assert 0 < row["core_s"]["check"] < row["core_s"]["start"] * 5
        assert row["core_s"][IDLE] > -0.05 * row["wall_s"]


def test_a_profile_speaks_of_every_node(tiny_bundle: Path) -> None:
    found = profile_graph(Bundle.read(tiny_bundle), "denoise", 64, 3)
    assert found.runs == 3
    operators, groups = by(found, "op"), by(found, "group")
    assert {"Conv", "MatMul"} <= {row["op"] for row in operators}
    for rows in (operators, groups):
        assert sum(row["share"] for row in rows) == pytest.approx(1)
        assert sum(row["nodes"] for row in rows) == len(found.nodes) > 100
    assert {row["group"] for row in groups} <= set(GROUPS)
    assert not any("integer" in row["group"] for row in groups), "this bundle is float32"


def test_a_profile_is_the_median_without_the_first_runs() -> None:
    """One run is disturbed, the first is slow: neither is in the figures."""

    def event(ts: int, duration: int, **more: object) -> dict[str, object]:
        return {"ts": ts, "dur": duration} | more

    shape = {"input_type_shape": [{"uint8": [1, 4]}, {"float": []}]}
    arguments = {"node_index": "7", "op_name": "QLinearConv"} | shape
    events = []
    for number, duration in enumerate((900, 10, 12, 500, 11)):
        events.append(event(1000 * number, 950, cat="Session", name="model_run"))
        name = "c_kernel_time"
        events.append(event(1000 * number + 5, duration, cat="Node", name=name, args=arguments))
    found = read_events(events, warm_up=1)
    (node,) = found.nodes
    assert (node.name, node.group, node.inputs) == ("c", "integer products", "uint81x4 float")
    assert node.seconds == pytest.approx(11.5e-6) and found.runs == 4


@pytest.mark.parametrize(
    ("op", "types", "group"),
    [
        ("MatMulIntegerToFloat", ["uint8", "int8"], "integer products"),
        ("FusedMatMul", ["float", "float"], "float32 products"),
        ("QuantizeLinear", ["float"], "conversions"),
        ("Transpose", ["uint8"], "layout"),
        ("Unsqueeze", ["int64"], "shapes"),
        ("Shape", ["float"], "shapes"),
        ("QLinearConcat", ["float", "uint8"], "integer, other"),
        ("Softmax", ["float"], "float32, other"),
    ],
)
def test_operators_are_told_apart_by_what_they_work_on(
    op: str, types: list[str], group: str
) -> None:
    assert group_of(op, types) == group


def test_models_are_compared_on_the_tiles_that_both_have() -> None:
    def score(psnr: float, detail: bool) -> TileScore:
        return TileScore(detail, psnr, psnr / 40, {"iou_road": np.array([1, 4])})

    tiles = [Tile(x, 0, 14 + x // 2) for x in range(5)]
    base = {("a", tile): score(20 + i, i < 3) for i, tile in enumerate(tiles)}
    other = {("a", tile): score(20.5 + i, i < 3) for i, tile in enumerate(tiles[:4])}
    found = compare(base, other)
    assert found["overall"]["all"]["tiles"] == 4 and found["overall"]["detailed"]["tiles"] == 3
    assert found["overall"]["all"]["psnr_y"] == pytest.approx(
        {"difference": 0.5, "low": 0.5, "high": 0.5, "worst_tile": 0.5}
    )
    assert found["overall"]["all"]["base"]["iou_road"] == 0.25
    assert set(found["levels"]) == {"14", "15"} and found["levels"]["14"]["all"]["tiles"] == 2
    assert found["scenes"]["a"]["levels"]["15"]["detailed"]["tiles"] == 1


@pytest.mark.parametrize("name", ["missing/r.json", "."])
def test_a_report_that_cannot_be_written_is_refused_before_measuring(
    tmp_path: Path, name: str
) -> None:
    arguments = ["latency", "--seconds", "1000", "--output", str(tmp_path / name)]
    with pytest.raises(OutputError, match="give a file in a folder that exists"):
        CliRunner().invoke(app, arguments, catch_exceptions=False)


def test_a_report_replaces_the_former_one_whole(tmp_path: Path) -> None:
    output = tmp_path / "r.json"
    output.write_text("x" * 1000, encoding="utf-8")
    assert not tell({"a": 1}, as_json=False, output=output)
    assert json.loads(output.read_text(encoding="utf-8")) == {"a": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["r.json"]


def test_every_measuring_command_writes_its_figures_to_a_file() -> None:
    for command in app.registered_commands:
        name = command.name or command.callback.__name__
        text = CliRunner().invoke(app, [name, "--help"], env={"COLUMNS": "200"}).stdout
        assert "--output" in text and "--json" in text, name
