"""The SGDM: its equations on known numbers, its independence rules, its budgets."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from c2gm.model.config import FULL, NANO
from c2gm.model.flops import count_flops, count_parameters
from c2gm.model.mf_encoder import SpadeBlock
from c2gm.model.scale_encoder import tokenize
from c2gm.model.sgdm import SGDM, Condition, TrainingBatch
from c2gm.runtime.levels import prompt_keys, scale_prompt
from c2gm.runtime.schedule import NoiseSchedule

CHANNELS = NANO.autoencoder.latent_channels


@pytest.fixture(scope="module")
def model() -> SGDM:
    torch.manual_seed(0)
    return SGDM(NANO).eval()


@pytest.fixture(scope="module")
def epsilon_model() -> SGDM:
    torch.manual_seed(0)
    return SGDM(replace(NANO, schedule=FULL.schedule)).eval()


def pictures(batch: int, side: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(batch, 3, side, side, generator=generator) * 2 - 1


@torch.no_grad()
def denoised(model: SGDM, condition: Condition) -> Tensor:
    """The network's output for one fixed set of noise, time step and prompt."""
    rows, side = condition.feature_0.shape[0], condition.feature_0.shape[-1]
    states, pooled = model.encode_prompts([scale_prompt(14, 2)] * rows)
    latents = torch.randn(rows, CHANNELS, side, side, generator=torch.Generator().manual_seed(1))
    return model.denoise(latents, torch.full((rows,), 500), states, pooled, condition)


def test_spade_follows_equations_16_to_18() -> None:
    """gamma (1 + ...) and beta come from both modalities and act on the *imagery* branch."""
    torch.manual_seed(0)
    block = SpadeBlock(channels=4, hidden=6).train()
    imagery, reference = torch.randn(3, 4, 8, 8) * 3 + 2, torch.randn(3, 4, 8, 8)
    share = block.share[0]
    both = torch.cat([imagery, reference], dim=1)
    hidden = functional.relu(functional.conv2d(both, share.weight, share.bias, padding=1))
    gamma = functional.conv2d(hidden, block.gamma.weight, block.gamma.bias, padding=1)
    beta = functional.conv2d(hidden, block.beta.weight, block.beta.bias, padding=1)
    mu = imagery.mean(dim=(0, 2, 3), keepdim=True)
    sigma = (imagery.var(dim=(0, 2, 3), keepdim=True, correction=0) + 1e-5).sqrt()
    expected = (1 + gamma) * (imagery - mu) / sigma + beta
    torch.testing.assert_close(block(imagery, reference), expected)


@torch.no_grad()
def test_a_row_does_not_depend_on_its_batch(model: SGDM) -> None:
    """Running statistics in evaluation: the same window alone and among others."""
    imagery, reference = pictures(3, 64), pictures(3, 64, seed=1)
    ones = torch.ones(3)
    together = model.condition(imagery, reference, ones)
    alone = model.condition(imagery[:1], reference[:1], ones[:1])
    for whole, part in zip(together, alone, strict=True):
        torch.testing.assert_close(whole[:1], part, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_without_a_reference_its_content_plays_no_part(model: SGDM) -> None:
    imagery, none = pictures(1, 64), torch.zeros(1)
    one = model.condition(imagery, pictures(1, 64, seed=1), none)
    other = model.condition(imagery, pictures(1, 64, seed=2), none)
    for a, b in zip(one, other, strict=True):
        assert torch.equal(a, b)
    with_reference = model.condition(imagery, pictures(1, 64, seed=1), torch.ones(1))
    for a, b in zip(one, with_reference, strict=True):
        assert not torch.equal(a, b)


@torch.no_grad()
@pytest.mark.parametrize("side", [64, 128, 192, 320])
def test_any_multiple_of_64(model: SGDM, side: int) -> None:
    condition = model.condition(pictures(1, side), pictures(1, side), torch.ones(1))
    h, (c0, c1, c2, _) = side // 8, NANO.unet.channels
    cr = NANO.condition.reference_latent_channels
    assert [tuple(t.shape) for t in condition] == [
        (1, c0, h, h),
        (1, c1, h // 2, h // 2),
        (1, c2, h // 4, h // 4),
        (1, cr, h, h),
    ]
    assert denoised(model, condition).shape == (1, CHANNELS, h, h)


@torch.no_grad()
def test_every_feature_enters_encoder_and_decoder(model: SGDM) -> None:
    """After the first block of a level, going down and going up (method, section 3)."""
    condition = model.condition(pictures(1, 64), pictures(1, 64), torch.ones(1))
    for level, feature in enumerate(condition[:3]):
        down, up = model.unet.net.down_blocks[level], model.unet.net.up_blocks[3 - level]
        for block, reader in ((down, down.downsamplers[0]), (up, up.resnets[1])):
            first = block.attentions[0] if hasattr(block, "attentions") else block.resnets[0]
            left: list[Tensor] = []
            handles = [
                first.register_forward_hook(
                    lambda _, __, output, left=left: left.append(
                        output[0] if isinstance(output, tuple) else output
                    )
                ),
                reader.register_forward_pre_hook(
                    lambda _, inputs, left=left: left.append(inputs[0])
                ),
            ]
            denoised(model, condition)
            for handle in handles:
                handle.remove()
            written, read = left
            # On the way up the reader also gets a skip connection, in the channels behind.
            torch.testing.assert_close(read[:, : written.shape[1]], written + feature)


@pytest.mark.parametrize("name", ["model", "epsilon_model"])
def test_prediction_types_invert(name: str, request: pytest.FixtureRequest) -> None:
    """The schedule's DDIM coefficients recover z_0 from the true output, epsilon or v."""
    model: SGDM = request.getfixturevalue(name)
    schedule, steps = model.config.schedule, 7
    timestep = torch.from_numpy(schedule.timesteps(steps))
    c0, c1 = torch.from_numpy(schedule.ddim_coefficients(steps)[:, :2]).T[:, :, None, None, None]
    z0, eps = torch.randn(2, steps, CHANNELS, 8, 8).double()
    recovered = c0 * model.add_noise(z0, eps, timestep) + c1 * model.target(z0, eps, timestep)
    torch.testing.assert_close(recovered, z0, rtol=1e-4, atol=1e-4)
    noised, target = model.add_noise(z0, eps, timestep), model.target(z0, eps, timestep)
    seen = schedule.alphas_cumprod()[timestep] > 0
    predicted = model.predicted(noised, target, timestep)
    torch.testing.assert_close(predicted[seen], z0[seen], rtol=1e-4, atol=1e-4)


@given(st.integers(1, 40), st.sampled_from([1, 2, 4, 5]))
def test_sampling_that_ends_early_is_the_beginning_of_a_longer_run(steps: int, times: int) -> None:
    """Ending at a share of the time steps: the first steps of a run `times` as long, then x0."""
    whole = NoiseSchedule()
    early = replace(whole, sampling_end=1 - 1 / times)
    assert early.whole() == whole
    longer = whole.timesteps(steps * times)[:steps]
    np.testing.assert_array_equal(early.timesteps(steps), longer)
    ours, theirs = early.ddim_coefficients(steps), whole.ddim_coefficients(steps * times)[:steps]
    np.testing.assert_allclose(ours[:-1], theirs[:-1])
    np.testing.assert_allclose(ours[-1], [*theirs[-1, :2], 1, 0], atol=1e-12)
    with pytest.raises(ValueError, match="expected 1 to"):
        early.timesteps(early.max_steps + 1)


def test_loss_trains_what_the_configuration_says(model: SGDM) -> None:
    """A backward pass under bf16 autocast: finite gradients, none in the autoencoder."""
    model.train()
    prompts = tokenize([scale_prompt(12, None), scale_prompt(16, 2)])
    batch = TrainingBatch(
        pictures(2, 64), pictures(2, 64), torch.tensor([0.0, 1.0]), prompts, image=pictures(2, 64)
    )
    for loss in ("l2", "l1"):
        with torch.autocast("cpu", torch.bfloat16):
            value = model.training_loss(batch, loss=loss, min_snr_gamma=5.0)
        assert value.dtype == torch.float32 and torch.isfinite(value)
    value.backward()
    for name, parameter in model.named_parameters():
        if name.startswith("autoencoder."):
            assert parameter.grad is None
        else:
            assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
    assert not model.autoencoder.training
    model.zero_grad()
    model.eval()


def test_draws_share_a_condition_and_cover_the_schedule(model: SGDM) -> None:
    """Two draws of a pair are two losses of it, their time steps from either half."""
    prompts = tokenize([scale_prompt(12, None), scale_prompt(16, 2)])
    given = torch.tensor([0.0, 1.0])
    batch = TrainingBatch(pictures(2, 64), pictures(2, 64), given, prompts, image=pictures(2, 64))
    timestep, noise = torch.tensor([10, 400, 600, 999]), torch.randn(4, CHANNELS, 8, 8)
    together = model.training_loss(batch, draws=2, timestep=timestep, noise=noise)
    apart = [
        model.training_loss(batch, timestep=timestep[part], noise=noise[part])
        for part in (slice(0, 2), slice(2, 4))
    ]
    torch.testing.assert_close(together, (apart[0] + apart[1]) / 2)
    drawn = model._draw_timesteps(torch.zeros(200, 1), 2).view(2, 200)
    assert 0 <= drawn[0].min() and drawn[0].max() < 500 <= drawn[1].min() and drawn[1].max() < 1000


def test_zero_terminal_snr_leaves_no_step_unweighted(model: SGDM, epsilon_model: SGDM) -> None:
    """With gamma 5 the first sampling step (SNR 0) has weight one, near-clean steps little."""
    for one in (model, epsilon_model):
        weight = one._min_snr_weight(torch.tensor([999, 500, 0]), 5.0)
        assert weight[0] == 1.0
        assert weight[2] < 0.05


def test_prompts_are_distinct_and_fit(model: SGDM) -> None:
    """Every scale prompt has its own tokens and ends before the 77th."""
    token_ids = tokenize([scale_prompt(*key) for key in prompt_keys()])
    assert token_ids.shape[1] == 77
    assert (token_ids[:, -1] == 0).all()
    assert len(torch.unique(token_ids, dim=0)) == len(token_ids)


def test_nano_keeps_its_budgets() -> None:
    """15 M parameters; per 256 px tile 3 GFLOP of conditions, 2.5 a step, 6 for decoding."""
    assert count_parameters(NANO).total <= 15e6
    gflop = count_flops(NANO)
    assert 2.5 <= gflop["condition"] <= 3.0
    assert 2.0 <= gflop["denoise"] <= 2.5
    assert gflop["vae_decoder"] <= 6.0


def test_full_has_the_papers_size() -> None:
    """1.4 billion parameters in all and 152 million trainable, each within 10 %."""
    count = count_parameters(FULL)
    assert count.total == pytest.approx(1.4e9, rel=0.1)
    assert count.trainable == pytest.approx(152e6, rel=0.1)
    assert count.trainable_parts["autoencoder"] == count.trainable_parts["text_encoder"] == 0
