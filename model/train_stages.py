"""What is trained: the light autoencoder on map tiles, then the SGDM on pairs."""

from collections.abc import Iterator
from pathlib import Path
from typing import cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from c2gm.model.autoencoder import LightAutoencoder, build_autoencoder, reconstruction_loss
from c2gm.model.checkpoint import load_autoencoder, load_model, save_autoencoder, save_model
from c2gm.model.config import PRESETS
from c2gm.model.dataset import MapPairs
from c2gm.model.metrics import psnr_y
from c2gm.model.sampling import sample_latents, to_pictures
from c2gm.model.scale_encoder import tokenize
from c2gm.model.sgdm import SGDM, TrainingBatch
from c2gm.model.train import Batch, TrainOptions
from c2gm.runtime.errors import OptionError
from c2gm.runtime.levels import prompt_keys, scale_prompt

LATENT_NOISE = 0.05
"""Noise on the latents while the autoencoder learns, so that it forgives the sampler's errors."""

VALIDATION_STEPS = 10


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
                "trained here; use --stage sgdm"
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

    def batches(self, start_step: int) -> Iterator[Batch]:
        """See `train.Stage.batches`."""
        return self.pairs.batches(start_step)

    @torch.no_grad()
    def finish(self, module: nn.Module, batches: Iterator[Batch]) -> None:
        """Standardise the latents on 64 training batches (a frozen encoder keeps its own)."""
        if self.options.freeze_encoder:
            return
        autoencoder = cast(AutoencoderModule, module).autoencoder
        latents = [autoencoder.encode(next(batches)["image"]).float() for _ in range(64)]
        cells = torch.cat([z.permute(1, 0, 2, 3).flatten(1) for z in latents], dim=1)
        autoencoder.standardise(cells.mean(dim=1), cells.std(dim=1))

    @torch.no_grad()
    def validate(self, module: nn.Module, sheet: Path) -> dict[str, float]:
        """PSNR-Y of reconstructions on detailed validation tiles; sheet: map, reconstruction."""
        autoencoder = cast(AutoencoderModule, module).autoencoder
        batch = self.pairs.validation(64, detailed=True)
        decoded = [autoencoder.decode(autoencoder.encode(x[None]))[0] for x in batch["image"]]
        output = to_pictures(torch.stack(decoded)).numpy()
        truth = to_pictures(batch["image"]).numpy()
        picture_sheet([truth[::6], output[::6]], sheet)
        return {"psnr_y_detailed": float(np.mean(psnr_y(output, truth)))}

    def save_weights(self, module: nn.Module, path: Path) -> None:
        """See `train.Stage.save_weights`."""
        save_autoencoder(cast(AutoencoderModule, module).autoencoder, self.config, path)


class SGDMModule(nn.Module):
    """Wraps the SGDM so that `forward(batch)` is the loss; see `SGDM.training_loss` for `probe`."""

    token_ids: Tensor

    def __init__(self, model: SGDM, options: TrainOptions) -> None:
        super().__init__()
        self.model, self.options = model, options
        config = model.config
        self.probe = nn.Conv2d(
            config.condition.output_channels, config.autoencoder.latent_channels, 1
        )
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
        """Eq. 19."""
        return self.model.training_loss(
            self.training_batch(batch),
            loss=self.options.loss,
            draws=self.options.draws,
            noise_bias=self.options.noise_bias,
            probe=self.probe,
        )


class SGDMStage:
    """Trains the SGDM over a frozen autoencoder."""

    def __init__(self, options: TrainOptions) -> None:
        self.options = options
        if options.initial is not None:
            model = load_model(options.initial, PRESETS[options.preset])
        else:
            model = SGDM(PRESETS[options.preset])
            if options.autoencoder is None:
                raise OptionError(
                    "the SGDM needs a trained autoencoder: give --autoencoder FILE.safetensors "
                    "(from --stage autoencoder), or --initial with a whole model"
                )
            load_autoencoder(model.autoencoder, options.autoencoder)
        self.pairs = MapPairs(options.dataset, options)
        self.module: nn.Module = SGDMModule(model, options)

    def batches(self, start_step: int) -> Iterator[Batch]:
        """See `train.Stage.batches`."""
        return self.pairs.batches(start_step)

    def finish(self, module: nn.Module, batches: Iterator[Batch]) -> None:
        """Nothing to add: the averaged weights are final as they are."""

    @torch.no_grad()
    def validate(self, module: nn.Module, sheet: Path) -> dict[str, float]:
        """Generates detailed validation tiles from true references and scores PSNR-Y.

        Sheet: imagery, enlarged reference, generated, true map.
        """
        wrapped = cast(SGDMModule, module)
        model = wrapped.model
        batch = self.pairs.validation(32, detailed=True)
        generator = torch.Generator().manual_seed(self.options.seed)
        generated = []
        for rows in torch.arange(len(batch["image"])).split(8):
            part = wrapped.training_batch({k: v[rows] for k, v in batch.items()})
            states, pooled = model.text_encoder(part.token_ids)
            condition = model.condition(part.imagery, part.reference, part.has_reference)
            side = part.imagery.shape[-1] // 8
            channels = model.config.autoencoder.latent_channels
            noise = torch.randn(len(rows), channels, side, side, generator=generator)
            latents = sample_latents(model, condition, states, pooled, noise, VALIDATION_STEPS)
            generated.append(to_pictures(model.autoencoder.decode(latents)))
        output = torch.cat(generated).numpy()
        truth = to_pictures(batch["image"]).numpy()
        reference = to_pictures(batch["reference"]).numpy()
        imagery = to_pictures(batch["imagery"]).numpy()
        picture_sheet([x[::3] for x in (imagery, reference, output, truth)], sheet)
        given = batch["has_reference"].numpy() > 0
        scores = {"psnr_y": float(np.mean(psnr_y(output, truth)))}
        if given.any():
            scores["psnr_y_with_reference"] = float(np.mean(psnr_y(output[given], truth[given])))
            baseline = psnr_y(reference[given], truth[given])
            scores["psnr_y_enlarged_reference"] = float(np.mean(baseline))
        return scores

    def save_weights(self, module: nn.Module, path: Path) -> None:
        """See `train.Stage.save_weights`."""
        save_model(cast(SGDMModule, module).model, path)
