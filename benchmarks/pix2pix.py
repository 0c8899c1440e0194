"""A strong plain peer: a U-Net that paints the map at once, trained as pix2pix is.

Isola et al. 2017, "Image-to-Image Translation with Conditional Adversarial Networks": L1 and a
conditional PatchGAN (non-saturating), and what the SGDM is told about classes: thin and rare things
weigh more in L1, and the last features must say each pixel's class. It sees the same training
batches, through the same loop, as the SGDM: imagery, reference where there is one, level. Its
generator is a U-Net of about the SGDM's cost a training sample, so that the same time is about as
many samples. It begins at half the side, where class probabilities are asked for, too, and paints
what changes in the reference, where there is one. As the SGDM's critic, the opponent may come late.

python -m c2gm.benchmarks.pix2pix train --dataset runs/dataset --run runs/pix2pix --steps 8000 \
    --adversarial-weight 0
python -m c2gm.benchmarks.pix2pix train --dataset runs/dataset --run runs/judged \
    --initial runs/pix2pix/sgdm.safetensors --steps 2000
python -m c2gm.benchmarks.pix2pix evaluate --dataset runs/dataset --run runs/pix2pix
"""

import argparse
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import cast

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from c2gm.model.class_probe import GROUPS, STRIDE, THIN_WEIGHT, MapClasses
from c2gm.model.critic import players
from c2gm.model.data.dataset import MapPairs, Sample, collate
from c2gm.model.evaluation.evaluate import CONDITIONS, EvaluateOptions, evaluate
from c2gm.model.evaluation.lpips import packaged_network
from c2gm.model.evaluation.metrics import Pictures, psnr_y
from c2gm.model.evaluation.report_text import report_text
from c2gm.model.evaluation.scores import Networks
from c2gm.model.sampling import to_pictures
from c2gm.model.train import Batch, Trainer, TrainOptions
from c2gm.runtime.bundle import file_sha256
from c2gm.runtime.levels import LEVELS, SPANS

CHANNELS = (32, 64, 128, 224)
"""Of the generator's scales, from half the side to a sixteenth of it."""

PICTURE_WEIGHT = 100.0
"""Weight of the L1 term beside the adversarial one, as in the paper."""

CLASS_WEIGHT = 3.0
"""Weight of the classes' cross-entropy beside it: about a third of the L1 term at the end."""

_INPUTS = 3 + 3 + 1 + len(LEVELS)
_REFERENCE = slice(3, 6)


def _block(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, padding=1),
        nn.GroupNorm(8, outputs),
        nn.SiLU(),
        nn.Conv2d(outputs, outputs, 3, padding=1),
        nn.GroupNorm(8, outputs),
        nn.SiLU(),
    )


class Generator(nn.Module):
    """U-Net with skip connections; two convolutions a scale each way."""

    def __init__(self) -> None:
        super().__init__()
        stem = nn.Conv2d(_INPUTS, CHANNELS[0], 2 * STRIDE, STRIDE, padding=STRIDE // 2)
        self.stem = nn.Sequential(stem, nn.SiLU())
        self.down = nn.ModuleList(_block(a, b, 2) for a, b in pairwise(CHANNELS))
        self.middle = nn.ModuleList(_block(CHANNELS[-1], CHANNELS[-1]) for _ in range(2))
        self.widen = nn.ModuleList(nn.Conv2d(b, a, 1) for a, b in pairwise(CHANNELS))
        self.up = nn.ModuleList(_block(2 * a, a) for a, _ in pairwise(CHANNELS))
        self.output = nn.Conv2d(CHANNELS[0], 3 * STRIDE**2, 3, padding=1)

    def forward(self, condition: Tensor) -> Tensor:
        """Condition (b, _INPUTS, H, H) -> map (b, 3, H, H), about [-1, 1]."""
        return self.paint(self.features(condition), condition)

    def paint(self, features: Tensor, condition: Tensor) -> Tensor:
        """The map of the last features: the reference, or grey, and what they change in it."""
        change = functional.pixel_shuffle(self.output(features), STRIDE)
        return condition[:, _REFERENCE] + change

    def features(self, condition: Tensor) -> Tensor:
        """The last features (b, CHANNELS[0], H / STRIDE, H / STRIDE)."""
        skips = [self.stem(condition)]
        for down in self.down:
            skips.append(down(skips[-1]))
        x: Tensor = skips.pop()
        for middle in self.middle:
            x = x + middle(x)
        for up, widen in zip(reversed(self.up), reversed(self.widen), strict=True):
            x = functional.interpolate(widen(x), scale_factor=2.0, mode="nearest")
            x = up(torch.cat([x, skips.pop()], dim=1))
        return x


class Discriminator(nn.Module):
    """PatchGAN over condition and map: one verdict for every 8 px, each seeing 46 px."""

    def __init__(self) -> None:
        super().__init__()
        widths = (_INPUTS + 3, 32, 64, 128)
        layers: list[nn.Module] = []
        for a, b in pairwise(widths):
            layers += [nn.Conv2d(a, b, 4, 2, padding=1), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, 4, padding=1))

    def forward(self, condition: Tensor, picture: Tensor) -> Tensor:
        """-> logits (b, 1, h, h), positive for "true"."""
        verdict: Tensor = self.layers(torch.cat([condition, picture], dim=1))
        return verdict


def conditions(batch: Batch) -> Tensor:
    """Imagery, reference, whether there is one, and the level as one of nine."""
    imagery, given = batch["imagery"], batch["has_reference"][:, None, None, None]
    plane = torch.ones_like(imagery[:, :1])
    level = functional.one_hot(batch["level"] - min(LEVELS), len(LEVELS)).to(imagery.dtype)
    levels = level[:, :, None, None] * plane
    return torch.cat([imagery, batch["reference"] * given, given * plane, levels], dim=1)


class Pix2PixModule(nn.Module):
    """Generator and discriminator under one optimiser: each term reaches only the one it is for.

    With an `adversarial_weight` of 0 nobody judges, and that costs nothing.
    """

    def __init__(self, adversarial_weight: float = 1.0) -> None:
        super().__init__()
        self._adversarial_weight = adversarial_weight
        self.generator, self.discriminator = Generator(), Discriminator()
        self.classes, self.says = MapClasses(), nn.Conv2d(CHANNELS[0], len(GROUPS), 1)

    def forward(self, batch: Batch) -> Tensor:
        """The sum of both players' losses."""
        condition = conditions(batch)
        features = self.generator.features(condition)
        picture = self.generator.paint(features, condition)
        errors = self.errors(features, picture, batch)
        if self._adversarial_weight == 0:
            return errors
        fooled, verdict = players(self.discriminator, condition, batch["image"], picture)
        return errors + self._adversarial_weight * fooled + verdict

    def errors(self, features: Tensor, picture: Tensor, batch: Batch) -> Tensor:
        """What the generator pays for without any opponent: shades and classes."""
        truth = batch["image"]
        classes = self.classes.read(truth, batch["imagery"])
        said = self.says(features).float()
        error = ((picture - truth).abs() * self._weights(classes)).mean()
        told = self.classes.entropy(said, classes)
        total: Tensor = PICTURE_WEIGHT * error + CLASS_WEIGHT * told
        return total

    def _weights(self, classes: Tensor) -> Tensor:
        """Of pixels (b, 1, H, H), more where a thin thing is within a pixel or two; mean one."""
        near = functional.max_pool2d(self.classes.thin_share(classes, 1), 3, 1, padding=1)
        weights = 1.0 + THIN_WEIGHT * functional.interpolate(near, scale_factor=float(STRIDE))
        return weights / weights.mean()


class Pix2PixPainter:
    """Paints with the generator; see `c2gm.model.painter.Painter`."""

    def __init__(self, generator: Generator) -> None:
        self._generator = generator.eval()

    @torch.inference_mode()
    def paint(self, samples: Sequence[Sample]) -> Pictures:
        """One picture (256, 256, 3) a sample."""
        pictures: Pictures = to_pictures(self._generator(conditions(collate(samples)))).numpy()
        return pictures


class Pix2PixStage:
    """The peer as a stage of the training loop."""

    def __init__(self, options: TrainOptions, adversarial_weight: float) -> None:
        self.pairs = MapPairs(options.dataset, options)
        module = Pix2PixModule(adversarial_weight)
        if options.initial is not None:
            module.generator.load_state_dict(load_file(options.initial))
        self.module: nn.Module = module

    def batches(self, start_step: int, rank: int, ranks: int) -> Iterator[Batch]:
        """See `train.Stage.batches`."""
        return self.pairs.batches(start_step, rank, ranks)

    def finish(self, module: nn.Module, batches: Iterator[Batch]) -> None:
        """Nothing to add."""

    def validate(self, module: nn.Module, sheet: Path) -> dict[str, float]:
        """PSNR-Y of detailed validation tiles from true references."""
        samples = [s for s in self.pairs.validation(32) if s.imagery[..., 3].any()]
        painter = Pix2PixPainter(cast(Pix2PixModule, module).generator)
        output = np.concatenate([painter.paint([sample]) for sample in samples])
        truth = np.stack([sample.target for sample in samples])
        valid = np.stack([sample.imagery[..., 3] > 0 for sample in samples])
        return {"psnr_y": float(psnr_y(output, truth, valid).mean())}

    def save_weights(self, module: nn.Module, path: Path) -> None:
        """The generator alone."""
        state = cast(Pix2PixModule, module).generator.state_dict()
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, path)


def main() -> None:
    """Parse; train, or score what was trained."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("action", choices=("train", "evaluate"))
    parser.add_argument("--dataset", type=Path, required=True)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--initial", type=Path, help="weights of a former run's generator")
    parser.add_argument("--steps", type=int, default=8000)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--optimizer", default="adamw", choices=("adamw", "muon"))
    parser.add_argument("--learning-rate", type=float, default=6e-4)
    parser.add_argument("--decay-share", type=float, default=0.4)
    parser.add_argument("--adversarial-weight", type=float, default=1.0)
    parser.add_argument("--validate-minutes", type=float, default=20.0)
    parser.add_argument("--references", default="mixed")
    parser.add_argument("--no-reference-share", type=float, default=0.5)
    parser.add_argument("--mixed-precision", default="bf16", choices=("no", "bf16"))
    parser.add_argument("--per-level", type=int, default=16)
    parser.add_argument("--conditions", default="both", choices=sorted(CONDITIONS))
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    if options.action == "train":
        torch.manual_seed(0)
        training = TrainOptions(
            # The loop's name for what reads pairs of imagery and map; the checkpoint says so too.
            stage="sgdm",
            dataset=options.dataset,
            run=options.run,
            initial=options.initial,
            steps=options.steps,
            batch=options.batch,
            optimizer=options.optimizer,
            learning_rate=options.learning_rate,
            decay_share=options.decay_share,
            validate_minutes=options.validate_minutes,
            references=options.references,
            no_reference_share=options.no_reference_share,
            mixed_precision=options.mixed_precision,
        )
        stage = Pix2PixStage(training, options.adversarial_weight)
        print(f"weights: {Trainer(stage, training).run()}")
        return
    generator, weights = Generator(), options.run / "sgdm.safetensors"
    generator.load_state_dict(load_file(weights))
    networks = Networks(alexnet=packaged_network())
    chosen = EvaluateOptions(options.dataset, options.per_level, options.conditions, SPANS)
    report = evaluate(
        Pix2PixPainter(generator),
        chosen,
        networks,
        lambda done, total: print(f"\r{done}/{total}", end="", flush=True),
    ).report
    scored = {"per_level": chosen.per_level, "coarsest": chosen.coarsest}
    model = {"name": "pix2pix", "run": options.run.name, "sha256": file_sha256(weights)}
    text = report_text({"model": model, "options": scored, **report})
    if options.output is not None:
        options.output.write_text(text, encoding="utf-8")
    else:
        print(text, end="")


if __name__ == "__main__":
    main()
