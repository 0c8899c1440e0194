"""What exported graphs are compared on: realistic inputs, and the torch model's own answers.

The answers come from `SGDM` and the noise schedule directly, not from the modules that are
exported, so that a fault in those modules shows as well.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from c2gm.model.config import DEFAULT_STEPS
from c2gm.model.sampling import to_pictures
from c2gm.model.scale_encoder import tokenize
from c2gm.model.sgdm import SGDM, Condition
from c2gm.runtime.contract import GraphName
from c2gm.runtime.levels import prompt_keys, scale_prompt

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class CheckPlan:
    """How much is compared.

    `windows`: (rows, side in pixels) of the batches. The first one is sampled in `steps` DDIM
    steps, and every one of these is compared. `spread`: further time steps from 0 to the last,
    compared on noised latents, each row at a time step of its own. `every_step`: side in pixels of
    one more window, small, that is compared at all time steps of the schedule; None for none.
    """

    windows: tuple[tuple[int, int], ...] = ((1, 256), (3, 320))
    steps: int = DEFAULT_STEPS
    spread: int = 24
    every_step: int | None = 64


@dataclass(frozen=True, slots=True)
class Case:
    """Inputs of a graph in the contract's float32, and what the model makes of them."""

    label: str
    inputs: Arrays
    outputs: Arrays


@dataclass(frozen=True, slots=True)
class Reference:
    """All cases by graph; and of the first window's sampling run the noise and the picture."""

    cases: Mapping[GraphName, list[Case]]
    noise: NDArray[np.float32]
    pictures: NDArray[np.uint8] = field(repr=False)
    """(rows, side, side, 3)"""


@torch.no_grad()
def reference_cases(model: SGDM, plan: CheckPlan, seed: int = 0) -> Reference:
    """Run the torch model, in float32, on everything that the plan names."""
    rng = np.random.default_rng(seed)
    prompts = [scale_prompt(*key) for key in prompt_keys()]
    token_ids = tokenize(prompts, model.config.text.context_length)
    states, pooled = model.text_encoder(token_ids)
    text = Case(
        "all scale prompts", _arrays(token_ids=token_ids), _arrays(states=states, pooled=pooled)
    )
    cases: dict[GraphName, list[Case]] = {
        "text_encoder": [_rows(text, slice(0, 1)), text],
        "condition": [],
        "denoise": [],
        "vae_decoder": [],
        "vae_encoder": [],
    }
    sampled: tuple[Tensor, Tensor] | None = None
    windows = [(rows, side, plan.spread) for rows, side in plan.windows]
    if plan.every_step is not None:
        windows.append((1, plan.every_step, model.config.schedule.train_timesteps))
    for rows, side, spread in windows:
        label = f"{rows} x {side} px"
        picks = torch.from_numpy(rng.integers(0, len(prompts), rows))
        embedding = {"states": states[picks], "pooled": pooled[picks]}
        imagery, base = _imagery(rng, rows, side), _picture(rng, rows, side)
        has_reference = torch.arange(rows) % 2 == 0
        inputs = {
            "imagery": imagery,
            "reference": _scaled(base) * has_reference[:, None, None, None],
            "has_reference": has_reference.float(),
        }
        condition = model.condition(**inputs)
        shared = embedding | condition._asdict()
        cases["condition"].append(Case(label, _arrays(**inputs), _arrays(**condition._asdict())))
        encoded = model.autoencoder.encode(_scaled(base))
        cases["vae_encoder"].append(Case(label, _arrays(image=base), _arrays(latents=encoded)))
        noise = torch.from_numpy(rng.standard_normal(encoded.shape, dtype=np.float32))
        latents = encoded
        if sampled is None:
            trajectory = list(_trajectory(model, shared, noise, plan.steps, label))
            cases["denoise"] += trajectory
            latents = torch.from_numpy(trajectory[-1].outputs["next_latents"])
            sampled = noise, latents
        cases["denoise"] += _spread(model, shared, encoded, noise, spread, label)
        image = to_pictures(model.autoencoder.decode(latents)).permute(0, 3, 1, 2)
        cases["vae_decoder"].append(Case(label, _arrays(latents=latents), _arrays(image=image)))
    assert sampled is not None
    pictures = to_pictures(model.autoencoder.decode(sampled[1])).numpy()
    return Reference(cases, sampled[0].numpy(), pictures)


def denoise_step(
    model: SGDM,
    shared: Mapping[str, Tensor],
    latents: Tensor,
    previous_x0: Tensor,
    timestep: NDArray[np.int64],
    coefficients: NDArray[np.float64],
    active: NDArray[np.bool_],
    label: str,
) -> Case:
    """One step as docs/graphs.md defines it, the update in float64."""
    condition = Condition(*(shared[name] for name in Condition._fields))
    output = model.denoise(
        latents, torch.from_numpy(timestep), shared["states"], shared["pooled"], condition
    )
    z, o, previous = (t.double().numpy() for t in (latents, output, previous_x0))
    c0, c1, c2, c3 = coefficients.T[:, :, None, None, None]
    x0 = c0 * z + c1 * o
    next_latents = c2 * x0 + c3 * z
    norm = np.sqrt((x0**2).sum(axis=(1, 2, 3)))
    change = np.sqrt(((x0 - previous) ** 2).sum(axis=(1, 2, 3))) / norm
    kept = active[:, None, None, None]
    inputs = {
        **shared,
        "latents": latents,
        "previous_x0": previous_x0,
        "timestep": torch.from_numpy(timestep),
        "coefficients": torch.from_numpy(coefficients.astype(np.float32)),
        "active": torch.from_numpy(active.astype(np.float32)),
    }
    outputs = {
        "next_latents": np.where(kept, next_latents, z).astype(np.float32),
        "x0": np.where(kept, x0, previous).astype(np.float32),
        "change": np.where(active, change, 0.0).astype(np.float32),
    }
    return Case(label, _arrays(**inputs), outputs)


def _trajectory(
    model: SGDM, shared: Mapping[str, Tensor], noise: Tensor, steps: int, label: str
) -> Iterator[Case]:
    """Every step of a sampling run from `noise`, all rows active."""
    schedule = model.config.schedule
    rows = len(noise)
    latents, previous = noise, torch.zeros_like(noise)
    for t, row in zip(schedule.timesteps(steps), schedule.ddim_coefficients(steps), strict=True):
        case = denoise_step(
            model,
            shared,
            latents,
            previous,
            np.full(rows, t),
            np.tile(row, (rows, 1)),
            np.ones(rows, bool),
            f"{label}, sampling, t = {t}",
        )
        yield case
        latents = torch.from_numpy(case.outputs["next_latents"])
        previous = torch.from_numpy(case.outputs["x0"])


def _spread(
    model: SGDM, shared: Mapping[str, Tensor], clean: Tensor, noise: Tensor, count: int, label: str
) -> Iterator[Case]:
    """Time steps from 0 to the last on the noised picture; of several rows the last is inactive."""
    schedule = model.config.schedule.whole()
    total, rows = schedule.train_timesteps, len(noise)
    coefficients = schedule.ddim_coefficients(total)[::-1]
    spread = np.unique(np.linspace(0, total - 1, max(count, 2)).round().astype(np.int64))
    for start in range(0, len(spread), rows):
        timestep = np.resize(spread[start : start + rows], rows)
        yield denoise_step(
            model,
            shared,
            model.add_noise(clean, noise, torch.from_numpy(timestep)),
            clean,
            timestep,
            coefficients[timestep],
            np.arange(rows) < max(rows - 1, 1),
            f"{label}, t = {', '.join(map(str, timestep))}",
        )


def _picture(rng: np.random.Generator, rows: int, side: int) -> Tensor:
    """Map-like pictures uint8 (rows, 3, side, side): flat areas, crisp edges, thin lines."""
    flat = rng.integers(150, 256, (rows, 3, side // 32, side // 32), dtype=np.uint8)
    picture = flat.repeat(32, axis=2).repeat(32, axis=3)
    for line in rng.integers(0, side - 2, 6):
        picture[:, :, line : line + 2] = 255
        picture[:, :, :, line] = rng.integers(0, 256, (rows, 3, 1), dtype=np.uint8)
    return torch.from_numpy(picture)


def _imagery(rng: np.random.Generator, rows: int, side: int) -> Tensor:
    """Imagery-like pictures in [-1, 1]: fields with texture; a corner of the last is invalid."""
    noisy = _picture(rng, rows, side).numpy() * 0.5 + rng.normal(0.0, 12.0, (rows, 3, side, side))
    imagery = _scaled(torch.from_numpy(noisy.clip(0, 255).astype(np.uint8)))
    imagery[-1, :, : side // 3, : side // 4] = 0.0
    return imagery


def _scaled(picture: Tensor) -> Tensor:
    return picture.float() / 127.5 - 1.0


def _arrays(**tensors: Tensor) -> dict[str, NDArray[Any]]:
    return {name: tensor.numpy() for name, tensor in tensors.items()}


def _rows(case: Case, rows: slice) -> Case:
    return Case(
        f"{case.label}, some rows",
        {name: array[rows] for name, array in case.inputs.items()},
        {name: array[rows] for name, array in case.outputs.items()},
    )
