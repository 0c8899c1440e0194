"""Stable Diffusion 2.1-base into `full`: strict, from local files only, with a report."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

import c2gm.model._torchvision  # noqa: F401  (diffusers may import torchvision)
from c2gm.model.autoencoder import KLAutoencoder
from c2gm.model.sgdm import SGDM
from c2gm.runtime.errors import WeightsError

# isort: split
from diffusers.loaders.single_file_utils import (
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
)

State = dict[str, Tensor]

SOURCE = "stabilityai/stable-diffusion-2-1-base"
UNET, VAE, TEXT = "unet.net.", "autoencoder.vae.", "text_encoder.transformer."
"""Where the three parts stand in `SGDM`."""
LDM_UNET, LDM_VAE, LDM_TEXT = "model.diffusion_model.", "first_stage_model.", "cond_stage_model."
"""Where they stand in a single file of the original layout; the text tower below `model.`."""
NEW = ("mf_encoder.", "sf_adapter.", "reference_encoder.", f"{UNET}class_embedding.")
"""What Stable Diffusion does not have."""
CONV_IN = f"{UNET}conv_in.weight"

_FOLDER_FILES = {
    "unet": ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin"),
    "vae": ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin"),
    "text_encoder": ("model.safetensors", "pytorch_model.bin"),
}
_UNUSED_TEXT = re.compile(r"text_projection(\.weight)?|logit_scale|attn_mask|position_ids")
_OLD_VAE_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
_QUERY_KEY_VALUE = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
_TEXT_LAYER = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "self_attn.out_proj": "attn.out_proj",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}
_TEXT_OUTSIDE = {
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "embeddings.position_ids": "position_ids",
    "final_layer_norm.weight": "ln_final.weight",
    "final_layer_norm.bias": "ln_final.bias",
}


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What `load_sd21` did, by names of tensors."""

    source: Path
    loaded: tuple[str, ...]
    """Tensors of the model that came from the source."""
    initialised: tuple[str, ...]
    """Tensors of the model that the source does not have, `conv_in`'s new channels among them."""
    left_over: tuple[str, ...]
    """Tensors of the source that the model does not use; the text tower's by the model's naming."""
    loaded_parameters: int
    initialised_parameters: int

    def summary(self) -> str:
        """One line for people."""
        return (
            f"{self.source}: loaded {len(self.loaded)} tensors "
            f"({self.loaded_parameters / 1e6:.1f} M parameters), initialised "
            f"{len(self.initialised)} ({self.initialised_parameters / 1e6:.1f} M), left over "
            f"{len(self.left_over)}"
        )


def load_sd21(model: SGDM, path: Path) -> LoadReport:
    """Fill a model of `full`'s kind with Stable Diffusion 2.1-base, in place.

    `path`: a diffusers folder (`unet/`, `vae/`, `text_encoder/`; safetensors or .bin), or a single
    `.safetensors` or `.ckpt` file of the original layout (a separate EMA copy is not read). What
    the model adds starts without effect: eq. 8's channels of `conv_in` and the projection of the
    pooled text are zero, and so are the SFAdapter's gains, so that the U-Net does what it did.

    Raises WeightsError, with the model untouched, if a file is missing or broken, or if a tensor is
    missing, of another shape, or unknown.
    """
    if not isinstance(model.autoencoder, KLAutoencoder):
        raise WeightsError(
            f"preset {model.config.name!r} does not have Stable Diffusion's architecture; "
            "use preset 'full'"
        )
    if path.is_dir():
        state, left_over = _from_folder(path, model.config.schedule.prediction_type)
    elif path.is_file():
        state, left_over = _from_single_file(path, model)
    else:
        raise _missing(path)
    unused = [name for name in state if _is_unused(name, model.config.text.layers)]
    left_over += unused
    state = {name: tensor for name, tensor in state.items() if name not in unused}
    loaded_parameters = sum(tensor.numel() for tensor in state.values())
    own = model.state_dict()
    initialised = [name for name in own if name.startswith(NEW)]
    added = own[CONV_IN].shape[1] - model.config.autoencoder.latent_channels
    if added and CONV_IN in state:
        kernel = state[CONV_IN]
        zeros = kernel.new_zeros(kernel.shape[0], added, *kernel.shape[2:])
        state[CONV_IN] = torch.cat([kernel, zeros], dim=1)
        initialised.append(f"{CONV_IN}[:, {kernel.shape[1]}:]")
    _check(path, {n: t for n, t in own.items() if not n.startswith(NEW)}, state)
    with torch.no_grad():
        for name, tensor in state.items():
            own[name].copy_(tensor)
        for name, tensor in own.items():
            if name.startswith(("sf_adapter.gains.", f"{UNET}class_embedding.linear_2.")):
                tensor.zero_()
    total = sum(tensor.numel() for tensor in own.values())
    return LoadReport(
        source=path,
        loaded=tuple(state),
        initialised=tuple(initialised),
        left_over=tuple(left_over),
        loaded_parameters=loaded_parameters,
        initialised_parameters=total - loaded_parameters,
    )


def _from_folder(path: Path, prediction_type: str) -> tuple[State, list[str]]:
    """The model's names -> tensors of a diffusers folder; its names that have no place there."""
    scheduler = path / "scheduler" / "scheduler_config.json"
    if scheduler.is_file():
        found = json.loads(scheduler.read_text(encoding="utf-8")).get("prediction_type", "epsilon")
        if found != prediction_type:
            raise WeightsError(
                f"{path} predicts {found}, the configuration {prediction_type}; use {SOURCE}, "
                "or set the configuration's prediction_type"
            )
    parts: dict[str, State] = {}
    for part, names in _FOLDER_FILES.items():
        files = [path / part / name for name in names]
        existing = [file for file in files if file.is_file()]
        if not existing:
            raise _missing(files[0])
        parts[part] = read_tensors(existing[0])
    state = {UNET + name: tensor for name, tensor in parts["unet"].items()}
    for name, tensor in parts["vae"].items():
        state[VAE + _modern_vae_name(name)] = tensor
    for name, tensor in _text_from_transformers(parts["text_encoder"]).items():
        state[TEXT + name] = tensor
    return state, []


def _from_single_file(path: Path, model: SGDM) -> tuple[State, list[str]]:
    """The model's names -> tensors of a file in the original layout; names outside its parts."""
    tensors = read_tensors(path)

    def part(prefix: str) -> State:
        return {name: tensor for name, tensor in tensors.items() if name.startswith(prefix)}

    text = part(f"{LDM_TEXT}model.")
    unet = {"layers_per_block": model.config.unet.layers_per_block}
    blocks = model.config.autoencoder.encoder_channels
    vae = {"down_block_types": blocks, "up_block_types": blocks}
    state = {TEXT + name.removeprefix(f"{LDM_TEXT}model."): text[name] for name in text}
    state |= _converted(path, UNET, part(LDM_UNET), convert_ldm_unet_checkpoint, unet)
    state |= _converted(path, VAE, part(LDM_VAE), convert_ldm_vae_checkpoint, vae)
    known = (f"{LDM_TEXT}model.", LDM_UNET, LDM_VAE)
    return state, [name for name in tensors if not name.startswith(known)]


def _converted(
    path: Path,
    prefix: str,
    part: State,
    convert: Callable[[State, Mapping[str, Any]], State],
    config: Mapping[str, Any],
) -> State:
    """diffusers' conversion of one part, which drops what it does not know: that is an error."""
    converted = convert(dict(part), config)
    # Converted tensors are the given ones or views of them, so they stand at the same address.
    kept = {tensor.data_ptr() for tensor in converted.values()}
    dropped = [name for name, tensor in part.items() if tensor.data_ptr() not in kept]
    if dropped:
        raise WeightsError(
            f"{path} has {len(dropped)} tensors that {SOURCE} does not have, first {dropped[0]}; "
            "use that model"
        )
    return {prefix + name: tensor for name, tensor in converted.items()}


def _modern_vae_name(name: str) -> str:
    """Attention layers of the VAE have older names in files of 2022, Stable Diffusion's own."""
    match = re.fullmatch(r"(.+\.attentions\.\d+)\.(query|key|value|proj_attn)\.(.+)", name)
    return f"{match[1]}.{_OLD_VAE_ATTENTION[match[2]]}.{match[3]}" if match else name


def _text_from_transformers(state: Mapping[str, Tensor]) -> State:
    """transformers' CLIPTextModel -> open_clip's names; q, k and v become one matrix."""
    renamed: State = {}
    projections: dict[str, State] = {}
    for name, tensor in state.items():
        short = name.removeprefix("text_model.")
        match = re.fullmatch(r"encoder\.layers\.(\d+)\.(.+)\.(weight|bias)", short)
        if match is None:
            renamed[_TEXT_OUTSIDE.get(short, name)] = tensor
            continue
        layer, module, kind = match.groups()
        block = f"transformer.resblocks.{layer}."
        if module in _QUERY_KEY_VALUE:
            projections.setdefault(f"{block}attn.in_proj_{kind}", {})[module] = tensor
        else:
            renamed[f"{block}{_TEXT_LAYER.get(module, module)}.{kind}"] = tensor
    for name, parts in projections.items():
        renamed[name] = torch.cat([parts[module] for module in _QUERY_KEY_VALUE if module in parts])
    return renamed


def _is_unused(name: str, layers: int) -> bool:
    """Whether a tensor of the text tower is known and not needed (eq. 9 reads `layers` blocks)."""
    if not name.startswith(TEXT):
        return False
    short = name.removeprefix(TEXT)
    match = re.match(r"transformer\.resblocks\.(\d+)\.", short)
    return int(match[1]) >= layers if match else bool(_UNUSED_TEXT.fullmatch(short))


def _check(path: Path, expected: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
    missing = [name for name in expected if name not in state]
    unknown = [name for name in state if name not in expected]
    wrong = [
        f"{name} {tuple(state[name].shape)} instead of {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in state and state[name].shape != tensor.shape
    ]
    found = (("missing", missing), ("unknown", unknown), ("of another shape", wrong))
    problems = [f"{len(names)} {what} ({names[0]})" for what, names in found if names]
    if problems:
        raise WeightsError(f"{path} is not {SOURCE}: tensors {', '.join(problems)}; use that model")


def _missing(path: Path) -> WeightsError:
    return WeightsError(
        f"{path} does not exist; fetch {SOURCE} on a machine with network (the folders unet, vae "
        "and text_encoder, or v2-1_512-ema-pruned.safetensors) and put it there"
    )


def read_tensors(path: Path) -> State:
    """Tensors by name of a `.safetensors` file, or of a pickled one that holds only tensors.

    Raises WeightsError if it cannot be read as that; no code of a pickle is run.
    """
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, UnpicklingError, RuntimeError, EOFError, OSError, KeyError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else "truncated"
        raise WeightsError(
            f"{path} cannot be read as weights ({reason}); fetch it again, as .safetensors if it "
            "is a pickle"
        ) from None
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict):
        raise WeightsError(f"{path} holds no tensors by name; fetch {SOURCE} again")
    return {name: value for name, value in content.items() if isinstance(value, Tensor)}
