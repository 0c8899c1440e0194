"""The training loop: AdamW or Muon, EMA, autocast, resumable checkpoints, progress, validation.

What is trained stands in `train_stages.py`; this file knows only a module whose forward is a loss.
accelerate underneath: the same loop runs on a CPU, a GPU, or several (`accelerate launch`).
"""

import json
import math
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Literal, Protocol, get_args, get_origin, get_type_hints

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from c2gm.model.data.dataset import References
from c2gm.model.data.mosaic import Kind
from c2gm.model.muon import MuonAdamW
from c2gm.runtime.errors import OptionError, OutputError, WeightsError
from c2gm.runtime.levels import SPANS, check_spans

Batch = Mapping[str, Tensor]


@dataclass(frozen=True)
class TrainOptions:
    """Options of `c2gm-train`; a flag of the command line is a field's name.

    `steps` counts optimiser steps. The learning rate rises over `warmup_steps`, stays, and falls
    linearly to zero over the last `decay_share` of the run, so that a run can be prolonged by
    resuming it with more steps before its decay has begun.
    """

    stage: Literal["autoencoder", "sgdm"]
    dataset: Path
    run: Path
    preset: str = "nano"
    autoencoder: Path | None = None
    initial: Path | None = None
    steps: int = 10_000
    batch: int = 16
    optimizer: Literal["adamw", "muon"] = "adamw"
    learning_rate: float = 3e-4
    weight_decay: float = 0.01
    warmup_steps: int = 200
    decay_share: float = 0.25
    ema_decay: float = 0.999
    gradient_clip: float = 1.0
    no_reference_share: float = 0.2
    references: References = "true"
    spans: tuple[int, ...] = SPANS
    level_weights: Mapping[int, float] = field(default_factory=dict)
    kinds: tuple[str, ...] = ()
    loss: Literal["l2", "l1"] = "l2"
    draws: int = 1
    noise_bias: float = 1.0
    critic_share: float = 0.0
    mixed_precision: Literal["no", "bf16", "fp16"] = "bf16"
    compile: bool = False
    freeze_encoder: bool = False
    encoder_only: bool = False
    workers: int = 1
    checkpoint_minutes: float = 5.0
    validate_minutes: float = 20.0
    log_every: int = 20
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "draws", "log_every"):
            if getattr(self, name) < 1:
                raise OptionError(f"--{name.replace('_', '-')} is {getattr(self, name)}, need >= 1")
        for name, annotation in get_type_hints(TrainOptions).items():
            choices = get_args(annotation) if get_origin(annotation) is Literal else ()
            if choices and (value := getattr(self, name)) not in choices:
                flag = name.replace("_", "-")
                raise OptionError(f"--{flag} is {value!r}, choose from {', '.join(choices)}")
        check_spans(self.spans)
        unknown = set(self.kinds) - set(get_args(Kind))
        if unknown:
            raise OptionError(
                f"--kinds {', '.join(sorted(unknown))}: choose from {', '.join(get_args(Kind))}"
            )
        if self.critic_share < 0:
            raise OptionError(f"--critic-share is {self.critic_share}, need 0 or more")
        if self.noise_bias <= 0:
            raise OptionError(f"--noise-bias is {self.noise_bias}, need more than 0")
        if any(weight < 0 for weight in self.level_weights.values()):
            raise OptionError("--level-weights must not be negative")
        if not 0.0 <= self.decay_share <= 1.0:
            raise OptionError(f"--decay-share is {self.decay_share}, expected 0 to 1")


class Stage(Protocol):
    """What the loop asks of the thing that is trained."""

    module: nn.Module
    """Trainable module whose `forward(batch)` returns the scalar loss."""

    def batches(self, start_step: int, rank: int, ranks: int) -> Iterator[Batch]:
        """Batches of one of `ranks` processes from a step on; the same step yields the same one."""
        ...

    def finish(self, module: nn.Module, batches: Iterator[Batch]) -> None:
        """Last touch on the averaged weights before they are saved as final."""
        ...

    def validate(self, module: nn.Module, sheet: Path) -> dict[str, float]:
        """Scores of the averaged weights, and a picture sheet written to `sheet`."""
        ...

    def save_weights(self, module: nn.Module, path: Path) -> None:
        """Write weights (safetensors) that export and later stages read."""
        ...


def learning_rate_factor(step: int, options: TrainOptions) -> float:
    """Warm-up, plateau, linear decay to zero; `step` counts from 0."""
    warm = min(1.0, (step + 1) / max(1, options.warmup_steps))
    decay_steps = options.decay_share * options.steps
    left = (options.steps - step) / decay_steps if decay_steps > 0 else 1.0
    return warm * max(0.0, min(1.0, left))


class _Average:
    """EMA of what is trained, and of buffers, into `AveragedModel`'s copy.

    The decay rises with the number of updates, so that early averages are not stale. Frozen
    parameters are the same in both and cost nothing.
    """

    def __init__(self, average: AveragedModel, module: nn.Module, decay: float) -> None:
        self._average, self._decay = average, decay
        copies = [*average.module.parameters(), *average.module.buffers()]
        currents = [*module.parameters(), *module.buffers()]
        frozen = {id(p) for p in module.parameters() if not p.requires_grad}
        pairs = [(a, b) for a, b in zip(copies, currents, strict=True) if id(b) not in frozen]
        # An attention mask is a buffer too, and the mean of two infinities is not a number.
        smooth = [(a, b) for a, b in pairs if b.is_floating_point() and bool(b.isfinite().all())]
        self._copies, self._currents = [a for a, _ in smooth], [b for _, b in smooth]
        taken = {id(b) for b in self._currents}
        self._others = [(a, b) for a, b in pairs if id(b) not in taken]

    @torch.no_grad()
    def update(self) -> None:
        """Take the module's present values into the average."""
        n = float(self._average.n_averaged)
        weight = 1.0 - min(self._decay, (1.0 + n) / (10.0 + n)) if n else 1.0
        torch._foreach_lerp_(self._copies, self._currents, weight)
        for copy, current in self._others:
            copy.copy_(current)
        self._average.n_averaged += 1


def _optimizer(module: nn.Module, options: TrainOptions) -> torch.optim.Optimizer:
    if options.optimizer == "muon":
        return MuonAdamW(module, options.learning_rate, options.weight_decay)
    return torch.optim.AdamW(
        [p for p in module.parameters() if p.requires_grad],
        lr=options.learning_rate,
        betas=(0.9, 0.99),
        weight_decay=options.weight_decay,
        fused=True,
    )


class Trainer:
    """Runs a stage to its last step, or to Ctrl-C, with a checkpoint either way."""

    def __init__(self, stage: Stage, options: TrainOptions) -> None:
        self.stage, self.options = stage, options
        self.accelerator = Accelerator(
            mixed_precision=None if options.mixed_precision == "no" else options.mixed_precision,
            cpu=not torch.cuda.is_available(),
        )
        optimizer = _optimizer(stage.module, options)
        stage.module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = AveragedModel(stage.module, use_buffers=True).to(self.accelerator.device)
        self.average.requires_grad_(False).eval()
        self.model, self.optimizer = self.accelerator.prepare(stage.module, optimizer)
        self.step = 0
        self.seconds = 0.0
        self._resume()

    @property
    def _checkpoint(self) -> Path:
        return self.options.run / "checkpoint.pt"

    def _raw(self) -> nn.Module:
        module = self.accelerator.unwrap_model(self.model)
        assert isinstance(module, nn.Module)
        return module

    def _resume(self) -> None:
        if not self._checkpoint.is_file():
            return
        try:
            state = torch.load(self._checkpoint, map_location="cpu", weights_only=True)
        except (EOFError, OSError, RuntimeError, UnpicklingError) as error:
            raise WeightsError(
                f"{self._checkpoint} is damaged ({type(error).__name__}); delete it to begin anew, "
                "from the last weights with --initial"
            ) from None
        if state["stage"] != self.options.stage or state["preset"] != self.options.preset:
            raise OptionError(
                f"{self._checkpoint} is of stage {state['stage']} and preset {state['preset']}, "
                f"asked for {self.options.stage} and {self.options.preset}; use another --run"
            )
        try:
            self._raw().load_state_dict(state["model"])
            self.average.load_state_dict(state["average"])
            self.optimizer.load_state_dict(state["optimizer"])
        except (RuntimeError, ValueError):
            raise WeightsError(
                f"{self._checkpoint} is of a model of other shapes; use another --run"
            ) from None
        self.step, self.seconds = int(state["step"]), float(state["seconds"])
        self._say(f"resumed at step {self.step}")

    def _save(self) -> None:
        if not self.accelerator.is_main_process:
            return
        part = self._checkpoint.with_suffix(".part")
        try:
            torch.save(
                {
                    "stage": self.options.stage,
                    "preset": self.options.preset,
                    "model": self._raw().state_dict(),
                    "average": self.average.state_dict(),
                    "optimizer": self.optimizer.state_dict(),
                    "step": self.step,
                    "seconds": self.seconds,
                },
                part,
            )
            os.replace(part, self._checkpoint)
        except OSError as error:
            raise OutputError(f"cannot write {self._checkpoint}: {error}; free space") from None

    def _say(self, text: str) -> None:
        if self.accelerator.is_main_process:
            print(text, flush=True)  # noqa: T201 (the command's progress)

    def _log(self, **record: float | int | str) -> None:
        if self.accelerator.is_main_process:
            with (self.options.run / "log.jsonl").open("a") as file:
                file.write(json.dumps(record) + "\n")

    def _validate(self) -> None:
        if not self.accelerator.is_main_process:
            return
        started = time.monotonic()
        module = self.average.module.eval()
        scores = self.stage.validate(module, self.options.run / f"sheet_{self.step:06d}.png")
        self.stage.save_weights(module, self.options.run / "latest.safetensors")
        self._log(step=self.step, **scores)
        text = ", ".join(f"{name} {value:.3f}" for name, value in scores.items())
        self._say(f"validation at step {self.step} ({time.monotonic() - started:.0f} s): {text}")

    def _optimise(self, batch: Batch) -> float:
        # Noise and time steps are a function of the step, so that a resumed run draws what an
        # undisturbed one draws, and of the process, so that several do not all draw the same.
        key = [self.options.seed, self.step, self.accelerator.process_index]
        torch.manual_seed(int(np.random.SeedSequence(key).generate_state(1)[0]))
        factor = learning_rate_factor(self.step, self.options)
        for group in self.optimizer.param_groups:
            group["lr"] = self.options.learning_rate * factor
        moved = {k: v.to(self.accelerator.device, non_blocking=True) for k, v in batch.items()}
        with self.accelerator.autocast():
            loss = self.forward(moved)
        self.accelerator.backward(loss)
        self.accelerator.clip_grad_norm_(self.model.parameters(), self.options.gradient_clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self._averaging.update()
        self.step += 1
        return float(loss.detach())

    def run(self) -> Path:
        """Train to the last step; returns the path of the final weights (averaged).

        Ctrl-C or SIGTERM writes a checkpoint and raises KeyboardInterrupt; the same command goes
        on.
        """
        options = self.options
        options.run.mkdir(parents=True, exist_ok=True)
        settings = {k: str(v) if isinstance(v, Path) else v for k, v in asdict(options).items()}
        (options.run / "options.json").write_text(json.dumps(settings, indent=1) + "\n")
        self.model.train()
        self._averaging = _Average(self.average, self._raw(), options.ema_decay)
        self.forward = torch.compile(self.model) if options.compile else self.model
        batches = self.stage.batches(
            self.step, self.accelerator.process_index, self.accelerator.num_processes
        )
        started = last_check = last_validation = last_log = time.monotonic()
        already, losses = self.seconds, list[float]()
        try:
            while self.step < options.steps:
                losses.append(self._optimise(next(batches)))
                now = time.monotonic()
                self.seconds = already + now - started
                if not math.isfinite(losses[-1]):
                    raise OptionError(
                        f"the loss is {losses[-1]} at step {self.step}: training diverged; run "
                        "again with a lower --learning-rate, from the last checkpoint"
                    )
                if self.step % options.log_every == 0 or self.step == options.steps:
                    pace = (now - last_log) / len(losses)
                    mean = sum(losses) / len(losses)
                    rate = options.batch * self.accelerator.num_processes / pace
                    left = pace * (options.steps - self.step) / 60
                    self._log(step=self.step, loss=mean, samples_per_s=rate, seconds=self.seconds)
                    self._say(
                        f"step {self.step}/{options.steps}  loss {mean:.4f}  "
                        f"{rate:.1f} samples/s  {left:.0f} min left"
                    )
                    last_log, losses = now, []
                if now - last_check > 60 * options.checkpoint_minutes:
                    self._save()
                    last_check = time.monotonic()
                if now - last_validation > 60 * options.validate_minutes:
                    self._validate()
                    last_validation = last_log = time.monotonic()
        except KeyboardInterrupt:
            self._save()
            raise
        self._save()
        self.stage.finish(self.average.module, batches)
        self._validate()
        final = options.run / f"{options.stage}.safetensors"
        if self.accelerator.is_main_process:
            self.stage.save_weights(self.average.module, final)
        return final
