"""Early stopping is written into a bundle only where it beats fewer fixed steps."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from blocks import GROUND, write_blocks
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from c2gm.export import calibrate
from c2gm.export.calibrate import add_early_stop
from c2gm.export.early_stop import MINIMUM_STEPS, judge
from c2gm.model.data.mosaic import Extent
from c2gm.model.evaluation.trajectories import Trajectories, stopping_steps
from c2gm.runtime.backends.base import StepRows, Tensors
from c2gm.runtime.bundle import Bundle, EarlyStop
from c2gm.runtime.sampler import CALM_STEPS, Sample, Sampler

STEPS = 10


def runs(
    good_after: dict[str, int], fixed: dict[int, float]
) -> tuple[dict[int, Trajectories], np.ndarray]:
    """Tiles of some prompts whose x0 stands still, at 30 dB, after so many steps."""
    prompts = np.repeat(list(good_after), 4)
    ends = np.array([good_after[prompt] for prompt in prompts])
    step = np.arange(1, STEPS + 1)
    settled = step >= ends[:, None]
    psnr = np.where(settled, 30.0, 20.0)
    whole = Trajectories(np.where(settled, 0.001, 0.9), psnr, psnr / 40)
    others = {
        n: Trajectories(
            np.zeros((len(ends), n)), np.full((len(ends), n), db), np.full((len(ends), n), db / 40)
        )
        for n, db in fixed.items()
    }
    return others | {STEPS: whole}, prompts


def test_each_prompt_gets_its_own_rule_where_that_wins() -> None:
    found, prompts = runs({"12-none": 4, "16-4x": STEPS}, {4: 25.0, 6: 28.0})
    verdict = judge(found, prompts)
    assert set(verdict.rules) == {"12-none"}
    assert verdict.rules["12-none"].minimum_steps == MINIMUM_STEPS
    assert verdict.report["mean_steps"] == (5 + STEPS) / 2


def test_no_rule_where_fewer_fixed_steps_do_as_well() -> None:
    found, prompts = runs({"12-none": 4, "16-4x": STEPS}, {4: 25.0, 6: 30.0})
    verdict = judge(found, prompts)
    assert not verdict.rules
    assert "6 fixed steps" in verdict.report["reason"]


def test_no_rule_where_nothing_stands_still() -> None:
    found, prompts = runs({"12-none": STEPS}, {4: 25.0})
    assert not judge(found, prompts).rules


def test_rules_are_judged_on_windows_that_they_were_not_chosen_on() -> None:
    """Here every second window loses all by the rule that costs the others nothing."""
    found, prompts = runs({"12-none": 4}, {4: 25.0})
    whole = found[STEPS]
    psnr = whole.psnr.copy()
    psnr[1::2, :-1] = 20.0
    found[STEPS] = Trajectories(whole.change, psnr, psnr / 40)
    verdict = judge(found, prompts)
    assert not verdict.rules
    assert "4 fixed steps give 25.00 dB, early stopping 20.00" in verdict.report["reason"]


def test_no_rule_without_windows_to_judge_on() -> None:
    found, _ = runs({"12-none": 4, "16-4x": 4}, {4: 25.0})
    verdict = judge(found, np.array([f"prompt {n}" for n in range(8)]))
    assert not verdict.rules and "too few windows" in verdict.report["reason"]


def test_a_rule_that_ends_all_windows_alike_is_no_rule() -> None:
    found, prompts = runs({"12-none": 4, "16-4x": 4}, {4: 25.0})
    verdict = judge(found, prompts)
    assert not verdict.rules
    assert "4 of 10 fixed steps give 30.00" in verdict.report["reason"]


class Scripted:
    """A loop whose changes are given."""

    rows, lag = 1, 0

    def __init__(self, changes: list[float]) -> None:
        self.changes = iter(changes)
        self.latest = np.zeros(1, np.float32)

    def admit(self, row: int, window: Tensors) -> None:
        pass

    def step(self, rows: StepRows) -> np.ndarray:
        self.latest = np.array([next(self.changes)], np.float32)
        return self.latest

    def paint(self, rows: Sequence[int]) -> tuple[list[np.ndarray], np.ndarray]:
        return [np.zeros((64, 64, 3), np.uint8)], self.latest

    def close(self) -> None:
        pass


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    changes=st.lists(st.floats(0, 1, width=32), min_size=1, max_size=12),
    tolerance=st.floats(0.01, 1),
    minimum=st.integers(1, 6),
)
def test_what_is_simulated_is_what_the_sampler_does(
    tiny_bundle: Path, changes: list[float], tolerance: float, minimum: int
) -> None:
    bundle = Bundle.read(tiny_bundle)
    rules = {"14-none": EarlyStop(tolerance, minimum)}
    bundle = replace(bundle, manifest=replace(bundle.manifest, early_stop=rules))
    sampler: Sampler[int] = Sampler(bundle, Scripted(changes), side=64, steps=len(changes))
    noise = np.zeros((bundle.manifest.latent_channels, 8, 8), np.float32)
    sampler.admit(Sample(0, np.zeros((3, 64, 64), np.float32), None, noise, 14, None))
    finished: list[int] = []
    while not finished:
        finished = [out.steps for out in sampler.step()]
    simulated = stopping_steps(np.array([changes]), tolerance, CALM_STEPS, minimum)
    assert finished == [simulated[0] + 1]


def test_a_bundle_of_few_steps_gets_none_and_its_report_says_why(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibrate, "WINDOWS", 12)
    blocks = np.random.default_rng(0).integers(60, 250, (16, 16, 3), dtype=np.uint8)
    half = Extent(GROUND.left, GROUND.top, GROUND.width // 2, GROUND.height)
    write_blocks(tmp_path, blocks, (13, 14), held_out=half)
    copy = tmp_path / "copy.c2gm"
    shutil.copytree(tiny_bundle, copy)
    manifest = json.loads((copy / "manifest.json").read_text(encoding="utf-8"))
    for steps in (2, 6):
        manifest["default_steps"] = steps
        (copy / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
        add_early_stop(copy, tmp_path, lambda line: None)
        report = json.loads((copy / "parity.json").read_text(encoding="utf-8"))["early_stop"]
        assert set(report["rules"]) == set(Bundle.read(copy).manifest.early_stop)
        assert ("too few" in report["reason"]) == (steps == 2)
        manifest = json.loads((copy / "manifest.json").read_text(encoding="utf-8"))
