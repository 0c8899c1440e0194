"""What is trained: the light autoencoder on map tiles, then the SGDM on pairs."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from c2gm.model.autoencoder import LightAutoencoder, build_autoencoder, reconstruction_loss
from c2gm.model.checkpoint import (
    load_autoencoder,
    load_model,
    load_probe,
    probe_path,
    save_autoencoder,
    save_model,
    save_probe,
)
from c2gm.model.class_probe import STRIDE, ClassProbe, ProbeScores
from c2gm.model.config import DEFAULT_STEPS, PRESETS
from c2gm.model.critic import LatentCritic, balanced, players
from c2gm.model.data.dataset import MapPairs, collate
from c2gm.model.evaluation.evaluate import enlarged_reference
from c2gm.model.evaluation.metrics import psnr_y
from c2gm.model.evaluation.painter import SGDMPainter
from c2gm.model.sampling import to_pictures
from c2gm.model.scale_encoder import tokenize
from c2gm.model.sgdm import SGDM, TrainingBatch
from c2gm.model.train import Batch, TrainOptions
from c2gm.runtime.errors import OptionError
from c2gm.runtime.levels import prompt_keys, scale_prompt

LATENT_NOISE = 0.05
"""Noise on the latents while the autoencoder learns, so that it forgives the sampler's errors."""

ENCODER_TILES = 144
ENCODER_CLASSES = ("wood", "water", "built-up", "building", "road")
"""How many tiles `encoder_only` is validated on, and the classes whose IoU it says."""

STATISTICS_BATCHES = 64
"""Training batches over which the latents' mean and deviation are taken."""


def picture_sheet(columns: list[np.ndarray], path: Path) -> None:
    """Write columns of uint8 pictures (n, H, H, 3) side by side, one row a sample."""
    rows = [np.concatenate(row, axis=1) for row in zip(*columns, strict=True)]
    Image.fromarray(np.concatenate(rows, axis=0)).save(path)


class AutoencoderModule(nn.Module):
    """Wraps the autoencoder so that `forward(batch)` is the loss."""

    def __init__(self, autoencoder: LightAutoencoder) -> None:
        super().__init__()
        self.autoencoder = autoencoder

    def forward(self, batch: Batch) -> Tensor:
        """Reconstruction loss of `batch["image"]` (b, 3, H, H) in [-1, 1]."""
        image = batch["image"]
        latents = self.autoencoder.encode(image)
        # The pull to zero keeps the latents' scale, and with it the noise's share, in place.
        pull = 1e-3 * latents.float().square().mean()
        noisy = latents + LATENT_NOISE * torch.randn_like(latents)
        return reconstruction_loss(self.autoencoder.decode(noisy).float(), image) + pull


class AutoencoderStage:
    """Trains the light autoencoder; `finish` standardises its latents."""

    def __init__(self, options: TrainOptions) -> None:
        self.config = PRESETS[options.preset]
        if self.config.autoencoder.kind != "light":
            raise OptionError(
                f"preset {options.preset!r} uses Stable Diffusion's autoencoder, which is not "
                "trained here; train its SGDM with c2gm-train sgdm"
            )
        self.options = options
        autoencoder = build_autoencoder(self.config.autoencoder)
        assert isinstance(autoencoder, LightAutoencoder)
        if options.initial is not None:
            load_autoencoder(autoencoder, options.initial)
        if options.freeze_encoder:
            autoencoder.encoder.requires_grad_(False)
        self.pairs = MapPairs(options.dataset, options)
        self.module: nn.Module = AutoencoderModule(autoencoder)

    def batches(self, start_step: int, rank: int, ranks: int) -> Iterator[Batch]:
        """See `train.Stage.batches`."""
        return self.pairs.batches(start_step, rank, ranks)

    @torch.no_grad()
    def finish(self, module: nn.Module, batches: Iterator[Batch]) -> None:
        """Standardise the latents on training batches (a frozen encoder keeps its own)."""
        if self.options.freeze_encoder:
            return
        autoencoder = cast(AutoencoderModule, module).autoencoder
        device = autoencoder.latent_mean.device
        # The encoder itself: what `encode` returns is standardised already, if it started so.
        images = (next(batches)["image"].to(device) for _ in range(STATISTICS_BATCHES))
        latents = [autoencoder.encoder(image).float() for image in images]
        cells = torch.cat([z.permute(1, 0, 2, 3).flatten(1) for z in latents], dim=1)
        autoencoder.standardise(cells.mean(dim=1), cells.std(dim=1))

    @torch.no_grad()
    def validate(self, module: nn.Module, sheet: Path) -> dict[str, float]:
        """PSNR-Y of reconstructions on detailed validation tiles; sheet: map, reconstruction."""
        autoencoder = cast(AutoencoderModule, module).autoencoder
        images = collate(self.pairs.validation(64))["image"]
        device = autoencoder.latent_mean.device
        decoded = [autoencoder.decode(autoencoder.encode(x[None].to(device)))[0] for x in images]
        output = to_pictures(torch.stack(decoded)).cpu().numpy()
        truth = to_pictures(images).numpy()
        picture_sheet([truth[::6], output[::6]], sheet)
        return {"psnr_y_detailed": float(np.mean(psnr_y(output, truth)))}

    def save_weights(self, module: nn.Module, path: Path) -> None:
        """See `train.Stage.save_weights`."""
        save_autoencoder(cast(AutoencoderModule, module).autoencoder, self.config, path)


class SGDMModule(nn.Module):
    """Wraps the SGDM so that `forward(batch)` is the loss, with what class_probe.py adds to it."""

    token_ids: Tensor

    def __init__(self, model: SGDM, options: TrainOptions) -> None:
        super().__init__()
        self.model, self.options = model, options
        config = model.config
        self.probe = ClassProbe(
            config.condition.output_channels, config.autoencoder.latent_channels
        )
        # Epsilon divided by a vanishing signal says nothing of z_0.
        self.judged = config.schedule.prediction_type == "v_prediction"
        self.critic: LatentCritic | None = None
        if options.critic_share:
            if not self.judged:
                raise OptionError(
                    f"--critic-share is for models that predict v, preset {config.name!r} predicts "
                    f"{config.schedule.prediction_type}; leave it out"
                )
            self.critic = LatentCritic(
                config.condition.output_channels, config.autoencoder.latent_channels
            )
        if options.encoder_only:
            model.requires_grad_(False)
            model.mf_encoder.requires_grad_(True)
        ids = tokenize([scale_prompt(*key) for key in prompt_keys()])
        self.register_buffer("token_ids", ids, persistent=False)

    def training_batch(self, batch: Batch) -> TrainingBatch:
        """The model's batch; `batch["prompt"]` holds indices into `prompt_keys()`."""
        return TrainingBatch(
            imagery=batch["imagery"],
            reference=batch["reference"],
            has_reference=batch["has_reference"],
            token_ids=self.token_ids[batch["prompt"]],
            image=batch["image"],
        )

    def forward(self, batch: Batch) -> Tensor:
        """Eq. 19, cells weighted, plus the probe's error; with `encoder_only` the latter alone."""
        classes = self.probe.read(batch["image"], batch["imagery"])
        probe = partial(self.probe.loss, classes=classes)
        if self.options.encoder_only:
            return self.model.encoder_loss(self.training_batch(batch), probe)
        return self.model.training_loss(
            self.training_batch(batch),
            loss=self.options.loss,
            draws=self.options.draws,
            noise_bias=self.options.noise_bias,
            probe=probe,
            judge=partial(self._judge, classes) if self.judged else None,
            cell_weights=self.probe.cell_weights(classes),
        )

    def _judge(self, classes: Tensor, drawn: Tensor, truth: Tensor, f_cond: Tensor) -> Tensor:
        """What predicted latents lack: the right classes and, with a critic, the look of a map."""
        total = self.probe.drawn_loss(drawn, classes)
        if self.critic is None:
            return total
        fooled, verdict = players(self.critic, f_cond, truth, drawn)
        return total + balanced(fooled, drawn, truth, self.options.critic_share) + verdict


class SGDMStage:
    """Trains the SGDM over a frozen autoencoder, with the probe of its initial weights if any."""

    def __init__(self, options: TrainOptions) -> None:
        self.options = options
        if options.initial is not None:
            model = load_model(options.initial, PRESETS[options.preset])
        else:
            model = SGDM(PRESETS[options.preset])
            if options.autoencoder is None:
                raise OptionError(
                    "the SGDM needs a trained autoencoder: give --autoencoder FILE.safetensors "
                    "(made by c2gm-train autoencoder), or --initial with a whole model"
                )
            load_autoencoder(model.autoencoder, options.autoencoder)
        self.pairs = MapPairs(options.dataset, options)
        module = SGDMModule(model, options)
        if options.initial is not None and (probe := probe_path(options.initial)).is_file():
            load_probe(module.probe, probe)
        self.module: nn.Module = module

    def batches(self, start_step: int, rank: int, ranks: int) -> Iterator[Batch]:
        """See `train.Stage.batches`."""
        return self.pairs.batches(start_step, rank, ranks)

    def finish(self, module: nn.Module, batches: Iterator[Batch]) -> None:
        """Nothing to add: the averaged weights are final as they are."""

    @torch.no_grad()
    def validate(self, module: nn.Module, sheet: Path) -> dict[str, float]:
        """PSNR-Y of detailed validation tiles from true references, as c2gm-eval scores it.

        Sheet: imagery, enlarged reference, generated, true map. With `encoder_only` what the
        encoder reads instead, see `_validate_encoder`.
        """
        if self.options.encoder_only:
            return self._validate_encoder(cast(SGDMModule, module), sheet)
        model = cast(SGDMModule, module).model
        samples = [s for s in self.pairs.validation(32) if s.imagery[..., 3].any()]
        painter = SGDMPainter(model, DEFAULT_STEPS, self.options.seed)
        parts = [samples[start : start + 8] for start in range(0, len(samples), 8)]
        output = np.concatenate([painter.paint(part) for part in parts])
        truth = np.stack([sample.target for sample in samples])
        valid = np.stack([sample.imagery[..., 3] > 0 for sample in samples])
        reference = np.stack([enlarged_reference(sample) for sample in samples])
        imagery = np.stack([sample.imagery[..., :3] for sample in samples])
        picture_sheet([x[::3] for x in (imagery, reference, output, truth)], sheet)
        given = np.array([sample.reference is not None for sample in samples])
        scores, baseline = psnr_y(output, truth, valid), psnr_y(reference, truth, valid)
        result = {"psnr_y": float(scores.mean())}
        if given.any():
            result["psnr_y_with_reference"] = float(scores[given].mean())
            result["psnr_y_enlarged_reference"] = float(baseline[given].mean())
        return result

    def _validate_encoder(self, module: SGDMModule, sheet: Path) -> dict[str, float]:
        """Classes of detailed validation tiles read from F_cond, without a reference, by kind.

        Sheet: imagery, classes as read, classes of the true map.
        """
        scores: dict[str, ProbeScores] = {}
        rows: list[list[np.ndarray]] = [[], [], []]
        for index, sample in enumerate(self.pairs.validation(ENCODER_TILES)):
            batch = {n: x.to(module.token_ids.device) for n, x in collate([sample]).items()}
            classes = module.probe.read(batch["image"], batch["imagery"])
            f_cond = module.model.mf_encoder(batch["imagery"], torch.zeros_like(batch["imagery"]))
            logits = module.probe.logits(f_cond)
            kind = sample.window.area.kind
            scores.setdefault(kind, ProbeScores()).add(module.probe, logits, classes)
            if index % 8 == 0:
                rows[0].append(sample.imagery[::STRIDE, ::STRIDE, :3])
                rows[1].append(module.probe.colours(logits.argmax(dim=1))[0].numpy())
                rows[2].append(module.probe.colours(classes)[0].numpy())
        picture_sheet([np.stack(row) for row in rows], sheet)
        return {
            f"{kind}_{name}": value
            for kind, found in sorted(scores.items())
            for name, value in found.of(ENCODER_CLASSES).items()
        }

    def save_weights(self, module: nn.Module, path: Path) -> None:
        """See `train.Stage.save_weights`; the probe is put beside them."""
        whole = cast(SGDMModule, module)
        save_model(whole.model, path)
        save_probe(whole.probe, whole.model.config, probe_path(path))
