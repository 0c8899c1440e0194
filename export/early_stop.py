"""When sampling may stop early: a tolerance for every scale prompt, if that is worth anything.

Early stopping has to beat simply taking fewer steps (method, section 6). So rules are chosen on
half of the windows, each as short as costs next to nothing against the bundle's default, and then
all of them together are set against every smaller fixed number of steps on the other half, of a
schedule of its own or the first ones of the same. Where one of those is as good at as few steps, no
rule is written.

Beside PSNR and SSIM, which like the mean of all maps that there may be, stands LPIPS, which does
not: a rule that ends windows while they are still blurred costs nothing by the first two.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from c2gm.model.data.dataset import open_sampler
from c2gm.model.data.pairs import Sample
from c2gm.model.data.sampler import SamplerOptions
from c2gm.model.evaluation.lpips import HOW_TO_INSTALL, packaged_network
from c2gm.model.evaluation.trajectories import Trajectories, record, stopping_steps
from c2gm.runtime.backends.onnxruntime import OnnxRuntimeBackend
from c2gm.runtime.bundle import Bundle
from c2gm.runtime.contract import EarlyStop, prompt_name
from c2gm.runtime.levels import TILE_SIZE
from c2gm.runtime.sampler import CALM_STEPS

TOLERANCES = (0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5)

MINIMUM_STEPS = (CALM_STEPS, 4)
"""From which step on a window may end: as soon as two can be compared, or a little later."""

Scores = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Measure:
    """A score. `better`: 1 where more is, -1 where less is.

    `loss`: what a prompt's rule may cost its tiles on average; `margin`: a fixed number of steps
    that is behind by so much is still as good.
    """

    better: int
    loss: float
    margin: float


MEASURES = {
    "psnr": Measure(1, 0.05, 0.02),
    "ssim": Measure(1, 0.001, 0.0005),
    "lpips": Measure(-1, 0.002, 0.001),
}
"""By the name in `Trajectories`."""

BLIND = ("psnr", "ssim")
"""Those that do not see blur; what rules they would choose is reported, too."""


@dataclass(frozen=True, slots=True)
class Rival:
    """A fixed number of steps. `scores` (n tiles) by measure."""

    title: str
    steps: int
    scores: Mapping[str, NDArray[np.float64]]

    @classmethod
    def of(cls, title: str, steps: int, run: Trajectories, at: int = -1) -> "Rival":
        """What a run has drawn after a step, counted from 0; default: after its last."""
        return cls(title, steps, {name: getattr(run, name)[:, at] for name in MEASURES})

    def means(self, rows: NDArray[np.int64]) -> Scores:
        """Of some of the tiles."""
        return {name: float(values[rows].mean()) for name, values in self.scores.items()}


@dataclass(frozen=True, slots=True)
class Verdict:
    """Rules by prompt (none where they do not earn their place), and how that was found out.

    `steps`: of a whole schedule that the rules are for; None: of the bundle's own.
    """

    rules: Mapping[str, EarlyStop]
    report: Mapping[str, Any]
    steps: int | None = None


def calibrate_early_stop(
    bundle: Bundle,
    dataset: Path,
    windows: int,
    progress: Callable[[str], None],
    longer: Sequence[int] = (),
) -> Verdict:
    """Sample `windows` of training ground at every number of steps and judge.

    `longer`: whole schedules of so many steps that are tried, too. Raises DataError for an unusable
    dataset.
    """
    default, schedule = bundle.manifest.default_steps, bundle.manifest.schedule
    if default <= CALM_STEPS and not longer:
        return _nothing(f"{default} steps are too few to stop before their end", progress)
    network = packaged_network()
    if network is None:
        return _nothing(
            f"not judged: without LPIPS blur passes for quality; {HOW_TO_INSTALL}", progress
        )
    samples = training_windows(dataset, windows)
    prompts = np.array([prompt_name(sample.level, sample.span) for sample in samples])
    loops = OnnxRuntimeBackend.cpu(bundle).open_loops(None, TILE_SIZE)
    whole = replace(bundle, manifest=replace(bundle.manifest, schedule=schedule.whole()))
    tried: list[tuple[int | None, Bundle, int]] = []
    if default > CALM_STEPS:
        tried.append((None, bundle, default))
    tried += [(steps, whole, steps) for steps in sorted(set(longer))]
    most = max(steps for _, _, steps in tried)
    progress(f"early stopping: sampling {len(samples)} windows in up to {most} steps")
    rivals = []
    for n in _numbers(min(most, schedule.max_steps), default):
        run = record(bundle, loops, samples, n, network, every_step=False)
        rivals.append(Rival.of(f"{n}", n, run))
    usual = next(rival for rival in rivals if rival.steps == default)
    verdicts: list[Verdict] = []
    for longer_steps, sampled, steps in tried:
        run = record(sampled, loops, samples, steps, network)
        verdict = judge(run, rivals, prompts, usual)
        title = f"{steps} steps" + (", whole" if longer_steps else "")
        progress(f"early stopping, schedule of {title}: {verdict.report['reason']}")
        report = {"schedule": title} | dict(verdict.report)
        verdicts.append(Verdict(verdict.rules, report, longer_steps))
    won = [verdict for verdict in verdicts if verdict.rules]
    best = min(won, key=lambda v: v.report["mean_steps"]) if won else verdicts[0]
    tables = [dict(verdict.report) for verdict in verdicts]
    outcome = {"rules": sorted(best.rules), "reason": best.report["reason"], "tried": tables}
    return Verdict(best.rules, outcome, best.steps if won else None)


def training_windows(dataset: Path, count: int) -> list[Sample]:
    """Tiles of training ground, with and without a reference. Raises DataError."""
    options = SamplerOptions(
        sides=(TILE_SIZE,), side_weights=(1.0,), no_reference_share=0.3, augment=False
    )
    sampler = open_sampler(dataset, "train", 1, options)
    samples = [sampler.batch(index, 1)[0] for index in range(count)]
    return [sample for sample in samples if sample.imagery[8:-8, 8:-8, 3].any()]


def judge(
    run: Trajectories,
    rivals: Sequence[Rival],
    prompts: NDArray[np.str_],
    default: Rival,
) -> Verdict:
    """Rules for a schedule from what was recorded of it, (n, steps), set against rivals.

    Every second window of a prompt is one to choose on, the others are to judge on. `default`: what
    rules must lose nothing to, and take no more steps than on average.
    """
    steps = run.change.shape[1]
    names = np.unique(prompts)
    windows = [np.flatnonzero(prompts == name) for name in names]
    halves = [(found[::2], found[1::2]) for found in windows]
    rows = np.sort(np.concatenate([others for _, others in halves]))
    if not len(rows):
        return Verdict({}, {"rules": [], "reason": "too few windows to choose and to judge on"})

    def chosen(measures: Sequence[str]) -> tuple[dict[str, EarlyStop], NDArray[np.int64]]:
        rules: dict[str, EarlyStop] = {}
        ends = np.full(len(prompts), steps - 1)
        for name, (here, others) in zip(names, halves, strict=True):
            rule = choose(run, here, default, measures) if len(others) else None
            if rule is not None:
                rules[str(name)] = rule
                ends[others] = _ends(run, rule)[others]
        return rules, ends[rows]

    rules, ends = chosen(tuple(MEASURES))
    blind_rules, blind_ends = chosen(BLIND)
    mine, usual = _means(run, rows, ends), default.means(rows)
    mean_steps = float((ends + 1).mean())
    # A rule that ends every window after k steps is worth no more than taking k steps.
    cut_short = [Rival.of(f"{k} of {steps}", k, run, k - 1) for k in range(1, steps)]
    scores = {rival.title: rival.means(rows) for rival in (*rivals, *cut_short)}
    affordable = min(np.ceil(mean_steps), steps - 1)
    as_good = {
        rival.title: scores[rival.title]
        for rival in (*rivals, *cut_short)
        if rival.steps <= affordable and _behind(scores[rival.title], mine, "margin")
    }
    found = f"{mine['psnr']:.2f} dB, LPIPS {mine['lpips']:.3f} in {mean_steps:.1f} steps"
    won = False
    if not rules:
        reason = "no tolerance ends a window without loss"
    elif as_good:
        rival = max(as_good, key=lambda title: tuple(as_good[title].values()))
        reason = (
            f"not worth it: {rival} fixed steps give {as_good[rival]['psnr']:.2f} dB, LPIPS "
            f"{as_good[rival]['lpips']:.3f}, early stopping {found}"
        )
    elif not _behind(mine, usual, "loss"):
        reason = f"on other windows than it was chosen on it loses too much: {found}"
    elif mean_steps > default.steps:
        reason = f"not worth it: {found}, the default takes {default.steps}"
    else:
        won, reason = True, f"instead of {default.steps} steps {found}"
    report = {
        "rules": sorted(rules) if won else [],
        "reason": reason,
        "windows": {"chosen_on": len(prompts) - len(rows), "judged_on": len(rows)},
        "mean_steps": round(mean_steps, 3),
        **_rounded(mine),
        "default": {"steps": default.steps, **_rounded(usual)},
        "to_its_end": _rounded(_means(run, rows, np.full(len(rows), steps - 1))),
        "by_psnr_and_ssim_alone": {
            "prompts": sorted(blind_rules),
            "mean_steps": round(float((blind_ends + 1).mean()), 3),
            **_rounded(_means(run, rows, blind_ends)),
        },
        "fixed": {title: _rounded(values) for title, values in scores.items()},
    }
    return Verdict(rules if won else {}, report)


def choose(
    run: Trajectories, rows: NDArray[np.int64], default: Rival, measures: Sequence[str]
) -> EarlyStop | None:
    """The rule of fewest steps that loses next to nothing to the default on these tiles.

    None where no rule does, or none ends a tile early.
    """
    usual = default.means(rows)
    best, fewest = None, float(run.change.shape[1] - 1)
    for rule in candidates():
        ends = _ends(run, rule)[rows]
        found = _means(run, rows, ends)
        if _behind(found, usual, "loss", measures) and ends.mean() < fewest:
            best, fewest = rule, float(ends.mean())
    return best


def candidates() -> Iterator[EarlyStop]:
    """All rules that are tried, the most careful first."""
    for minimum, tolerance in product(reversed(MINIMUM_STEPS), TOLERANCES):
        yield EarlyStop(tolerance, minimum)


def _ends(run: Trajectories, rule: EarlyStop) -> NDArray[np.int64]:
    assert rule.tolerance is not None
    return stopping_steps(run.change, rule.tolerance, CALM_STEPS, rule.minimum_steps)


def _means(run: Trajectories, rows: NDArray[np.int64], ends: NDArray[np.int64]) -> Scores:
    return {name: float(getattr(run, name)[rows, ends].mean()) for name in MEASURES}


def _behind(
    one: Scores,
    other: Scores,
    by: Literal["loss", "margin"],
    measures: Sequence[str] = tuple(MEASURES),
) -> bool:
    """Behind by no more than what is allowed, or ahead, in every measure."""
    return all(
        MEASURES[name].better * (other[name] - one[name]) <= getattr(MEASURES[name], by)
        for name in measures
    )


def _rounded(scores: Scores) -> dict[str, float]:
    return {name: round(value, 4) for name, value in scores.items()}


def _nothing(reason: str, progress: Callable[[str], None]) -> Verdict:
    progress(f"early stopping: {reason}")
    return Verdict({}, {"rules": [], "reason": reason})


def _numbers(most: int, default: int) -> list[int]:
    """Fixed numbers of steps that are tried."""
    return sorted({n for n in (1, 2, 3, 4, 6, 8, 10, 15, 20, 30, 40) if n <= most} | {default})
