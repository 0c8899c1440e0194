"""What the shipped model is compared with: the plain peer, and the ablation's rows."""

import numpy as np
import pytest
import torch
from blocks import GROUND, write_blocks
from tiny import tiny_model
from torch import nn
from torch.nn.functional import softplus

from c2gm.benchmarks.ablation import ROWS, OnePromptPainter
from c2gm.benchmarks.pix2pix import (
    Generator,
    Pix2PixModule,
    Pix2PixPainter,
    conditions,
)
from c2gm.model.data.dataset import Sample, collate, validation_samples


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    folder = tmp_path_factory.mktemp("peers")
    blocks = np.random.default_rng(0).integers(60, 250, (8, 8, 3), dtype=np.uint8)
    write_blocks(folder, blocks, (12, 14), held_out=GROUND)
    return validation_samples(folder, 1)


def assert_gradients(player: nn.Module, loss: torch.Tensor) -> None:
    """The player's gradients are those of `loss` alone."""
    parameters = list(player.parameters())
    for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-3, atol=1e-5)


def test_each_player_learns_from_its_own_terms_only(samples: list[Sample]) -> None:
    torch.manual_seed(0)
    module = Pix2PixModule()
    batch = {name: x[..., :64, :64] if x.dim() == 4 else x for name, x in collate(samples).items()}
    module(batch).backward()
    # What each of them would get from its own terms alone.
    condition, truth = conditions(batch), batch["image"]
    features = module.generator.features(condition)
    picture = module.generator.paint(features, condition)
    own = module.errors(features, picture, batch)
    own = own + softplus(-module.discriminator(condition, picture)).mean()
    assert_gradients(module.generator, own)
    fake = module.discriminator(condition, picture.detach())
    own = 0.5 * (softplus(fake).mean() + softplus(-module.discriminator(condition, truth)).mean())
    assert_gradients(module.discriminator, own)


def test_without_an_opponent_the_peer_learns_from_the_pictures_alone(samples: list[Sample]) -> None:
    torch.manual_seed(0)
    module = Pix2PixModule(adversarial_weight=0.0)
    batch = {name: x[..., :64, :64] if x.dim() == 4 else x for name, x in collate(samples).items()}
    module(batch).backward()
    condition = conditions(batch)
    features = module.generator.features(condition)
    picture = module.generator.paint(features, condition)
    assert_gradients(module.generator, module.errors(features, picture, batch))
    assert all(weight.grad is None for weight in module.discriminator.parameters())


def test_the_peer_begins_at_the_reference(samples: list[Sample]) -> None:
    generator = Generator()
    nn.init.zeros_(generator.output.weight)
    nn.init.zeros_(generator.output.bias)
    condition = conditions(collate(samples))
    torch.testing.assert_close(generator(condition), condition[:, 3:6])


def test_the_peer_paints_whole_tiles(samples: list[Sample]) -> None:
    pictures = Pix2PixPainter(Generator()).paint(samples)
    assert pictures.shape == (len(samples), 256, 256, 3) and pictures.dtype == np.uint8


def test_without_scale_every_level_has_one_prompt(samples: list[Sample]) -> None:
    assert len({(row.scale, row.span) for row in ROWS}) == 6
    painter = OnePromptPainter(tiny_model(), steps=1, seed=0)
    scaled = {tuple(row.tolist()) for row in painter._pooled}
    assert len(scaled) == 1
    assert painter.paint(samples[:1]).shape == (1, 256, 256, 3)
