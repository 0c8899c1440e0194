"""`c2gm-eval` from a dataset folder to report and sheet, with a real, untrained model."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from blocks import GROUND, write_blocks
from PIL import Image
from tiny import tiny_config, tiny_model
from typer.testing import CliRunner

from c2gm.model import config
from c2gm.model.checkpoint import save_model
from c2gm.model.data.dataset import Sample
from c2gm.model.evaluation.cli import app
from c2gm.model.evaluation.evaluate import EvaluateOptions, evaluate
from c2gm.model.evaluation.feature_metrics import InceptionFeatures, inception_network
from c2gm.model.evaluation.metrics import Pictures
from c2gm.model.evaluation.painter import SGDMPainter
from c2gm.model.evaluation.report_text import report_text
from c2gm.model.evaluation.scores import Networks
from c2gm.model.evaluation.tile_scores import TileScores
from c2gm.runtime.errors import OptionError, OutputError, WeightsError


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One area with levels 12 to 14, all of it validation ground, a strip of it without data."""
    folder = tmp_path_factory.mktemp("dataset")
    blocks = np.random.default_rng(0).integers(60, 250, (8, 8, 3), dtype=np.uint8)
    write_blocks(folder, blocks, (12, 14), held_out=GROUND, blank_share=1 / 16)
    return folder


class TruePainter:
    """Paints the true map: the scores' upper end."""

    def paint(self, samples: Sequence[Sample]) -> Pictures:
        return np.stack([sample.target for sample in samples])


def test_the_true_map_scores_full_marks_beside_its_baseline(dataset: Path) -> None:
    result = evaluate(TruePainter(), EvaluateOptions(dataset, 2), Networks(), lambda *_: None)
    with_reference = result.report["conditions"]["with_reference"]["all"]
    assert set(with_reference["levels"]) == {"14"}, "level 12 has no coarser map here"
    row = with_reference["levels"]["14"]
    assert row["tiles"] == 2
    scores = {name: value for name, value in row["model"].items() if value is not None}
    assert {"psnr_y", "ssim_y", "iou_road", "road_correctness"} <= set(scores)
    assert scores == pytest.approx(dict.fromkeys(scores, 1.0) | {"psnr_y": 60.0})
    assert 10 < row["enlarged_reference"]["psnr_y"] < 60
    without = result.report["conditions"]["without_reference"]["all"]
    assert set(without["levels"]) == {"12", "14"}
    assert without["overall"]["enlarged_reference"]["psnr_y"] is None, "not every tile has one"
    assert without["kinds"]["painted"]["levels"]["14"]["enlarged_reference"] == pytest.approx(
        row["enlarged_reference"]
    )


def test_tile_scores_add_up_to_the_tables(dataset: Path) -> None:
    """Whoever reads a report can make its means, and intervals of them, from its tiles."""
    result = evaluate(LevelPainter(), EvaluateOptions(dataset, 3), Networks(), lambda *_: None)
    report = json.loads(report_text(result.report))
    assert report == json.loads(json.dumps(result.report))
    found = TileScores.of_report(report)
    assert len(found.tiles) == report["tiles"]
    for condition, content in report["conditions"].items():
        for subset in ("all", "detailed"):
            chosen = found.painted[condition] & [getattr(tile, subset) for tile in found.tiles]
            table = content[subset]["overall"]
            assert table["tiles"] == chosen.sum() > 0
            for who, painter in (("model", condition), ("enlarged_reference",) * 2):
                if not found.painted[painter][chosen].all():
                    continue
                for name, parts in found.parts[painter].items():
                    part, whole = parts[chosen].sum(axis=0)
                    expected = table[who][name]
                    assert (
                        expected is None
                        if whole == 0
                        else expected == pytest.approx(part / whole, abs=1e-5)
                    ), name


def test_scores_do_not_depend_on_the_batch(dataset: Path) -> None:
    model = tiny_model()
    reports = [
        evaluate(
            SGDMPainter(model, steps=2, seed=3),
            EvaluateOptions(dataset, 2, references="without", batch=size),
            Networks(),
            lambda *_: None,
        ).report["conditions"]["without_reference"]["all"]["overall"]["model"]
        for size in (1, 3)
    ]
    assert reports[0] == pytest.approx(reports[1], abs=1e-3)


class LevelPainter:
    """Paints every tile in a grey that names its level, and keeps what it was given."""

    def __init__(self) -> None:
        self.given: list[Sample] = []

    def paint(self, samples: Sequence[Sample]) -> Pictures:
        self.given += samples
        return np.stack([np.full((256, 256, 3), 10 * s.level, dtype=np.uint8) for s in samples])


def test_a_cascade_draws_from_its_own_maps(dataset: Path) -> None:
    painter = LevelPainter()
    options = EvaluateOptions(dataset, 2, references="cascade", coarsest=12)
    report = evaluate(painter, options, Networks(), lambda *_: None).report
    assert set(report["conditions"]["cascade"]["all"]["levels"]) == {"12", "14"}
    spans = {(sample.level, sample.span) for sample in painter.given}
    assert spans == {(12, None), (14, 2)}
    for sample in painter.given:
        if sample.reference is not None:
            seen = sample.reference[..., 3] > 0
            assert (sample.reference[seen][:, :3] == 120).all(), "the map of level 12, as drawn"
            assert not sample.reference[~seen][:, 3].any()
    tiles = [(s.level, s.window.extent) for s in painter.given if s.level == 12]
    chosen = 2 * report["conditions"]["cascade"]["all"]["levels"]["12"]["tiles"]
    assert len(tiles) <= chosen, "a parent is drawn once for all its children"


def test_command_writes_report_and_sheet(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(config.PRESETS, "tiny", tiny_config())
    checkpoint, report, sheet = (tmp_path / n for n in ("t.safetensors", "r.json", "s.png"))
    save_model(tiny_model(), checkpoint)
    arguments = ["--dataset", str(dataset), "--checkpoint", str(checkpoint), "--per-level", "1"]
    outputs = ["--output", str(report), "--sheet", str(sheet)]
    done = CliRunner().invoke(app, [*arguments, "--steps", "1", *outputs], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    content = json.loads(report.read_text())
    assert content["model"]["preset"] == "tiny" and content["options"]["steps"] == 1
    assert "pt_inception" in content["left_out"]["fid"] and "dino_" in content["left_out"]["mfp"]
    scores = content["conditions"]["with_reference"]["detailed"]["overall"]
    assert 0 < scores["model"]["psnr_y"] < scores["enlarged_reference"]["psnr_y"]
    assert f"{scores['model']['psnr_y']:.2f} / " in done.output
    with Image.open(sheet) as picture:
        assert picture.width > 5 * 256 and picture.height > 2 * 256

    cases: list[tuple[list[str], type[Exception], str]] = [
        (["--inception-weights", "absent.pth"], WeightsError, "absent.pth does not exist; fetch"),
        (["--dino-weights", str(checkpoint)], WeightsError, "no DINO ViT-S or ViT-B"),
        (["--output", str(tmp_path / "no" / "r.json")], OutputError, "is not a folder"),
        (["--spans", "3"], OptionError, "choose from 2, 1"),
        (["--references", "some"], OptionError, "choose from with, without, both, cascade"),
        (["--steps", "0"], OptionError, "must be 1 to 1000"),
    ]
    for extra, error, message in cases:
        with pytest.raises(error, match=message):
            CliRunner().invoke(app, [*arguments, *extra], catch_exceptions=False)


def test_fid_is_over_sets_of_tiles(dataset: Path, tmp_path: Path) -> None:
    torch.save(inception_network().state_dict(), tmp_path / "inception.pth")
    networks = Networks(inception=InceptionFeatures(tmp_path / "inception.pth"))
    options = EvaluateOptions(dataset, 2, references="with")
    report = evaluate(TruePainter(), options, networks, lambda *_: None).report
    row = report["conditions"]["with_reference"]["all"]["overall"]
    # Untrained features are small: what counts is that equal sets are nearer than enlarged ones.
    assert 0 <= row["model"]["fid"] < 1e-3 * row["enlarged_reference"]["fid"]
    assert any("below 2048" in warning for warning in report["warnings"])
