"""The model card's tables: made of reports that belong together, differences with intervals."""

import json
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from blocks import GROUND, write_blocks

from c2gm.benchmarks.card_tables import card_tables
from c2gm.model.data.dataset import Sample
from c2gm.model.data.mosaic import Extent
from c2gm.model.evaluation.evaluate import EvaluateOptions, evaluate
from c2gm.model.evaluation.metrics import Pictures
from c2gm.model.evaluation.report_text import report_text
from c2gm.model.evaluation.scores import Networks
from c2gm.runtime.errors import DataError


class Darker:
    """Paints the true map, so much darker."""

    def __init__(self, shades: int) -> None:
        self._shades = shades

    def paint(self, samples: Sequence[Sample]) -> Pictures:
        return np.stack([sample.target - np.uint8(self._shades) for sample in samples])


Reports = Callable[..., Path]


@pytest.fixture(scope="module")
def write_report(tmp_path_factory: pytest.TempPathFactory) -> Reports:
    """Writes a report on four strips of real ground: of which painter, and how many tiles."""
    folder = tmp_path_factory.mktemp("strips")
    dataset = folder / "dataset"
    dataset.mkdir()
    rng = np.random.default_rng(0)
    for i in range(4):
        strip = Extent(GROUND.left + 16 * i, GROUND.top, 16, 64)
        blocks = rng.integers(60, 250, (8, 8, 3), dtype=np.uint8)
        write_blocks(dataset, blocks, (12, 14), strip, name=f"strip{i}", kind="real")

    def write(
        name: str, shades: int, per_level: int = 4, conditions: str = "both", coarsest: int = 14
    ) -> Path:
        options = EvaluateOptions(dataset, per_level, conditions, coarsest=coarsest)
        report = evaluate(Darker(shades), options, Networks(), lambda *_: None).report
        path = folder / name
        path.write_text(report_text({"options": {"coarsest": options.coarsest}, **report}))
        return path

    return write


def rows_of(table: Sequence[str]) -> dict[str, list[str]]:
    lines = [line.strip("| ").split(" | ") for line in table if line.startswith("|")]
    return {cells[0]: cells[1:] for cells in lines}


def test_differences_are_those_of_the_means_with_the_range_of_four_places(
    write_report: Reports,
) -> None:
    ours, peer = write_report("ours.json", 2), write_report("peer.json", 6)
    tables = {table[0]: table for table in card_tables(ours, peer)}
    title = "Model less enlarged reference, drawn from that reference, real imagery:"
    cells = rows_of(tables[title])["all"]
    assert cells[0] == "4 (4)"
    report: dict[str, Any] = json.loads(ours.read_text())
    row = report["conditions"]["with_reference"]["detailed"]["kinds"]["real"]["overall"]
    value = row["model"]["psnr_y"] - row["enlarged_reference"]["psnr_y"]
    found = re.fullmatch(r"\*\*(\S+) \[(\S+), (\S+)\]\*\*", cells[1])
    assert found is not None, cells
    shown, low, high = (float(number) for number in found.groups())
    assert low < shown < high and shown == pytest.approx(value, abs=0.006)
    assert cells[3] == "-", "there was no network for LPIPS"
    assert tables[title] in card_tables(ours), "without a peer as with one"

    # 6 shades are 20 log10(3) dB worse than 2, on every tile.
    for condition in ("with reference", "without reference"):
        cells = rows_of(tables[f"Model less peer, {condition}, real imagery:"])["all"]
        assert cells[1] == "**+9.54 [+9.54, +9.54]**"


def test_cascades_that_begin_elsewhere_stand_beside(write_report: Reports) -> None:
    ours = write_report("ours_all.json", 2, conditions="all")
    other = write_report("from_12.json", 6, conditions="cascade", coarsest=12)
    levels, classes, *_ = card_tables(ours, cascades=[other])
    cells = {level: row[-2:] for level, row in rows_of(levels).items()}
    assert cells["level"] == ["cascade from 14", "cascade from 12"]
    assert cells["12"][0] == "-" and float(cells["12"][1].split(" / ")[0]) > 20
    # 6 shades are 20 log10(3) dB worse than 2.
    from_14, from_12 = (float(cell.split(" / ")[0]) for cell in cells["14"])
    assert from_14 - from_12 == pytest.approx(9.54, abs=0.02)
    assert any(row.startswith("cascade from 12, real imagery") for row in rows_of(classes))
    with pytest.raises(DataError, match="has no cascade; make it with"):
        card_tables(ours, cascades=[write_report("both.json", 2)])


def test_reports_that_do_not_belong_together_are_refused(
    write_report: Reports, tmp_path: Path
) -> None:
    ours = write_report("full.json", 2)
    with pytest.raises(DataError, match=r"different tiles \(\d+ and \d+, \d+ in both\)"):
        card_tables(ours, write_report("fewer.json", 2, per_level=1))
    with pytest.raises(DataError, match="nothing of without_reference; make it with"):
        card_tables(ours, write_report("with.json", 2, conditions="with"))
    other = json.loads(ours.read_text())
    rows = other["tile_scores"]["scores"]["enlarged_reference"]
    rows[[row is not None for row in rows].index(True)][0] += 1.0
    (tmp_path / "other.json").write_text(json.dumps(other))
    with pytest.raises(DataError, match="enlarged references differ in psnr_y"):
        card_tables(ours, tmp_path / "other.json")


def test_a_report_without_scores_by_tile_is_one_line(write_report: Reports, tmp_path: Path) -> None:
    old = json.loads(write_report("new.json", 2).read_text())
    del old["tile_scores"]
    (tmp_path / "old.json").write_text(json.dumps(old))
    command = [sys.executable, "-m", "c2gm.benchmarks.card_tables", str(tmp_path / "old.json")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == DataError.exit_code and not done.stdout
    assert done.stderr.count("\n") == 1 and "no scores tile by tile" in done.stderr, done.stderr
    with pytest.raises(DataError, match="absent.json is no report"):
        card_tables(tmp_path / "absent.json")
