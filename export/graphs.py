"""The five graphs of a bundle as torch modules (docs/graphs.md): what export turns into ONNX.

All take and give float32 on the host's side, whatever precision they compute in; only what passes
from `condition` to `denoise` has the bundle's precision. FP16 modules keep FP32 islands where half
precision fails: normalisation statistics, softmax and the scheduler's arithmetic.
"""

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from c2gm.model.config import ModelConfig
from c2gm.model.sgdm import SGDM, Condition
from c2gm.runtime.contract import GraphName, TensorSpec
from c2gm.runtime.schedule import COEFFICIENTS

Precision = Literal["fp32", "fp16"]
DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "fp16": torch.float16}

NORMS = (nn.GroupNorm, nn.LayerNorm, nn.modules.batchnorm._BatchNorm)
"""Layers whose statistics or scales are computed in float32 in every precision."""


class Float32Island(nn.Module):
    """Runs a float32 layer among half-precision ones: in and out have the neighbours' dtype."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        """(b, ...) of any float dtype -> the layer's output in the same dtype."""
        return cast(Tensor, self.layer(x.float())).to(x.dtype)


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """`scaled_dot_product_attention` written out, softmax in float32.

    Both factors are scaled before they meet, because the unscaled products of Stable Diffusion 2.x
    exceed what half precision holds (black pictures). (b, heads, tokens, width) throughout.
    """
    if dropout_p or is_causal or enable_gqa:
        raise NotImplementedError("exported attention has no dropout, causal flag or shared heads")
    root = math.sqrt(query.shape[-1] ** -0.5 if scale is None else scale)
    scores = ((query * root) @ (key * root).transpose(-2, -1)).float()
    if attn_mask is not None:
        # A large finite number for -inf, which backends treat differently where rows are padded.
        scores = scores + attn_mask.float().clamp(min=-1e4)
    return scores.softmax(dim=-1).to(value.dtype) @ value


@contextmanager
def exportable() -> Iterator[None]:
    """Within this context every attention, of diffusers and of open_clip, is `attention`."""
    fast, original = (
        torch.backends.mha.get_fastpath_enabled(),
        functional.scaled_dot_product_attention,
    )
    torch.backends.mha.set_fastpath_enabled(False)
    functional.scaled_dot_product_attention = attention
    try:
        with torch.no_grad():
            yield
    finally:
        functional.scaled_dot_product_attention = original
        torch.backends.mha.set_fastpath_enabled(fast)


def in_precision(module: nn.Module, precision: Precision) -> nn.Module:
    """A copy of `module` for inference that computes in `precision`; fp32 shares the weights."""
    if precision == "fp32":
        return module.eval()
    half = copy.deepcopy(module).half().eval()
    for path, layer in module.named_modules():
        if isinstance(layer, NORMS):
            parent, _, name = path.rpartition(".")
            island = Float32Island(copy.deepcopy(layer).eval())
            setattr(half.get_submodule(parent), name, island)
    return half


def _part(model: SGDM, names: tuple[str, ...], precision: Precision) -> SGDM:
    """`model` with the named parts alone, in `precision`; the others are empty."""
    part = copy.copy(model)
    part._buffers = {}
    part._modules = {
        name: in_precision(child, precision) if name in names else nn.Identity()
        for name, child in model.named_children()
    }
    return part.eval()


class Graph(nn.Module):
    """A graph of the contract: a module, its inputs and its outputs."""

    name: GraphName
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def __init__(self) -> None:
        super().__init__()
        # The exporter puts a module back into the mode in which it found it.
        self.eval()

    def release(self) -> None:
        """Forget the weights (gigabytes, of a half-precision copy); the interface stays."""
        self._modules.clear()


class TextEncode(Graph):
    """Token ids (b, n) -> states (b, n, d) and pooled (b, d)."""

    name = "text_encoder"

    def __init__(self, model: SGDM, precision: Precision) -> None:
        super().__init__()
        text = model.config.text
        self.model = _part(model, ("text_encoder",), precision)
        self.inputs = (
            TensorSpec("token_ids", "int64", ("b", text.context_length), (0, text.vocab_size - 1)),
        )
        self.outputs = _text_specs(model.config)

    def forward(self, token_ids: Tensor) -> tuple[Tensor, Tensor]:
        """See docs/graphs.md."""
        states, pooled = self.model.text_encoder(token_ids)
        return states.float(), pooled.float()


class ConditionGraph(Graph):
    """Imagery and reference -> what all denoising steps of a window share."""

    name = "condition"

    def __init__(self, model: SGDM, precision: Precision) -> None:
        super().__init__()
        parts = ("mf_encoder", "sf_adapter", "reference_encoder")
        self.model = _part(model, parts, precision)
        self.dtype = DTYPES[precision]
        picture = ("b", 3, "H", "H")
        self.inputs = (
            TensorSpec("imagery", "float32", picture, (-1, 1)),
            TensorSpec("reference", "float32", picture, (-1, 1)),
            TensorSpec("has_reference", "float32", ("b",), (0, 1)),
        )
        self.outputs = _condition_specs(model.config, precision)

    def forward(self, imagery: Tensor, reference: Tensor, has_reference: Tensor) -> Condition:
        """See docs/graphs.md."""
        dtype = self.dtype
        return self.model.condition(imagery.to(dtype), reference.to(dtype), has_reference)


class DenoiseStep(Graph):
    """One DDIM step of every active row: U-Net, update, relative change, masking."""

    name = "denoise"

    def __init__(self, model: SGDM, precision: Precision) -> None:
        super().__init__()
        self.model = _part(model, ("unet",), precision)
        self.dtype = DTYPES[precision]
        latents = _latents_shape(model.config)
        last = model.config.schedule.train_timesteps - 1
        self.inputs = (
            TensorSpec("latents", "float32", latents),
            TensorSpec("previous_x0", "float32", latents),
            TensorSpec("timestep", "int64", ("b",), (0, last)),
            TensorSpec("coefficients", "float32", ("b", len(COEFFICIENTS))),
            TensorSpec("active", "float32", ("b",), (0, 1)),
            *_text_specs(model.config),
            *_condition_specs(model.config, precision),
        )
        self.outputs = (
            TensorSpec("next_latents", "float32", latents),
            TensorSpec("x0", "float32", latents),
            TensorSpec("change", "float32", ("b",)),
        )

    def forward(
        self,
        latents: Tensor,
        previous_x0: Tensor,
        timestep: Tensor,
        coefficients: Tensor,
        active: Tensor,
        states: Tensor,
        pooled: Tensor,
        feature_0: Tensor,
        feature_1: Tensor,
        feature_2: Tensor,
        reference_latent: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """See docs/graphs.md; the update is `NoiseSchedule.ddim_coefficients`'."""
        dtype = self.dtype
        condition = Condition(feature_0, feature_1, feature_2, reference_latent)
        output = self.model.denoise(
            latents.to(dtype), timestep, states.to(dtype), pooled.to(dtype), condition
        ).float()
        c0, c1, c2, c3 = coefficients[:, :, None, None, None].unbind(dim=1)
        x0 = c0 * latents + c1 * output
        next_latents = c2 * x0 + c3 * latents
        moved = (x0 - previous_x0).square().sum(dim=(1, 2, 3))
        # A predicted image of exactly zero is no change, not a division by zero.
        size = x0.square().sum(dim=(1, 2, 3)).clamp(min=1e-20)
        active_row = active > 0.5
        mask = active_row[:, None, None, None]
        return (
            torch.where(mask, next_latents, latents),
            torch.where(mask, x0, previous_x0),
            torch.where(active_row, (moved / size).sqrt(), torch.zeros_like(active)),
        )


class Decode(Graph):
    """Latents -> picture, rounded half to even."""

    name = "vae_decoder"

    def __init__(self, model: SGDM, precision: Precision) -> None:
        super().__init__()
        self.model = _part(model, ("autoencoder",), precision)
        self.dtype = DTYPES[precision]
        self.inputs = (TensorSpec("latents", "float32", _latents_shape(model.config)),)
        self.outputs = (TensorSpec("image", "uint8", ("b", 3, "H", "H"), (0, 255)),)

    def forward(self, latents: Tensor) -> Tensor:
        """See docs/graphs.md."""
        image = self.model.autoencoder.decode(latents.to(self.dtype)).float()
        return ((image + 1.0) * 127.5).round().clamp(0.0, 255.0).to(torch.uint8)


class Encode(Graph):
    """Picture -> latents."""

    name = "vae_encoder"

    def __init__(self, model: SGDM, precision: Precision) -> None:
        super().__init__()
        self.model = _part(model, ("autoencoder",), precision)
        self.dtype = DTYPES[precision]
        self.inputs = (TensorSpec("image", "uint8", ("b", 3, "H", "H"), (0, 255)),)
        self.outputs = (TensorSpec("latents", "float32", _latents_shape(model.config)),)

    def forward(self, image: Tensor) -> Tensor:
        """See docs/graphs.md."""
        scaled = image.float() / 127.5 - 1.0
        return self.model.autoencoder.encode(scaled.to(self.dtype)).float()


GRAPH_CLASSES: dict[GraphName, Callable[[SGDM, Precision], Graph]] = {
    "text_encoder": TextEncode,
    "condition": ConditionGraph,
    "denoise": DenoiseStep,
    "vae_decoder": Decode,
    "vae_encoder": Encode,
}


def _latents_shape(config: ModelConfig) -> tuple[int | str, ...]:
    return ("b", config.autoencoder.latent_channels, "h", "h")


def _text_specs(config: ModelConfig) -> tuple[TensorSpec, ...]:
    text = config.text
    return (
        TensorSpec("states", "float32", ("b", text.context_length, text.width)),
        TensorSpec("pooled", "float32", ("b", text.width)),
    )


def _condition_specs(config: ModelConfig, precision: Precision) -> tuple[TensorSpec, ...]:
    dtype = str(DTYPES[precision]).removeprefix("torch.")
    features = (
        TensorSpec(f"feature_{i}", dtype, ("b", channels, side, side))
        for i, (channels, side) in enumerate(
            zip(config.unet.channels, ("h", "h/2", "h/4"), strict=False)
        )
    )
    latent = config.condition.reference_latent_channels
    return (*features, TensorSpec("reference_latent", dtype, ("b", latent, "h", "h")))
