"""Features of pictures from published networks, for FID and MFP; weights from local files only.

FID (Heusel et al. 2017): Frechet distance of Inception-v3's 2048 pooled features. The standard
network is the one ported from TensorFlow for pytorch-fid, which is not torchvision's: its average
pools leave the padding out, and its last block takes a maximum instead.
MFP (method, section 6): class token and keys of a DINO vision transformer (Caron et al. 2021).
"""

import pickle
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from c2gm.model import _torchvision  # noqa: F401  (must precede timm)
from c2gm.model.evaluation.metrics import Pictures, Values
from c2gm.runtime.errors import WeightsError

INCEPTION_SOURCE = (
    "pt_inception-2015-12-05-6726825d.pth, from release 'fid_weights' of the project "
    "mseitzer/pytorch-fid"
)
DINO_SOURCE = (
    "dino_deitsmall8_pretrain.pth (or dino_vitbase8_pretrain.pth), the backbone of ViT-S/8 (B/8) "
    "that the project facebookresearch/dino publishes"
)

MFP_GLOBAL_WEIGHT, MFP_STRUCTURE_WEIGHT = 10.0, 1.0
"""Eq. 22."""

_INCEPTION_LAYERS = (
    ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "maxpool1")
    + ("Conv2d_3b_1x1", "Conv2d_4a_3x3", "maxpool2")
    + ("Mixed_5b", "Mixed_5c", "Mixed_5d")
    + ("Mixed_6a", "Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e")
    + ("Mixed_7a", "Mixed_7b", "Mixed_7c")
)
_DINO_NAMES = {384: "ViT-S", 768: "ViT-B"}
_DINO_HEAD_WIDTH, _DINO_DEPTH, _DINO_SIDE = 64, 12, 224
# A broken pickle may end in almost any of the built-in errors.
_UNREADABLE = (
    OSError,
    EOFError,
    RuntimeError,
    ValueError,
    LookupError,
    pickle.UnpicklingError,
    SafetensorError,
)
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def inception_network() -> nn.Module:
    """torchvision's Inception-v3 with the 1008 outputs of the FID weights, untrained."""
    from torchvision.models import inception_v3

    network = inception_v3(weights=None, num_classes=1008, aux_logits=False, init_weights=False)
    return cast(nn.Module, network.eval())


def dino_network(width: int, patch: int) -> nn.Module:
    """timm's vision transformer in the size of a published DINO backbone, untrained."""
    from timm.models.vision_transformer import VisionTransformer

    network = VisionTransformer(
        img_size=_DINO_SIDE,
        patch_size=patch,
        embed_dim=width,
        depth=_DINO_DEPTH,
        num_heads=width // _DINO_HEAD_WIDTH,
        num_classes=0,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
    )
    return network.eval()


class InceptionFeatures:
    """The 2048 pooled features of the FID Inception-v3.

    Raises WeightsError if the file is missing or is not the published one's layout, tensor by
    tensor (torchvision's own Inception weights are another feature space and are refused).
    """

    def __init__(self, weights: Path) -> None:
        self.weights = weights
        self._network = inception_network()
        _fill(self._network, _read(weights, INCEPTION_SOURCE), weights, INCEPTION_SOURCE)

    @torch.inference_mode()
    def features(self, pictures: Pictures) -> Values:
        """Pictures (n, h, w, 3), resized to 299 px as pytorch-fid does -> (n, 2048)."""
        x = _unit(pictures)
        x = functional.interpolate(x, size=(299, 299), mode="bilinear", align_corners=False)
        x = 2.0 * x - 1.0
        for name in _INCEPTION_LAYERS:
            block = cast(Any, getattr(self._network, name))
            if name == "Mixed_7c":
                x = _with_pool(block, x, functional.max_pool2d(x, 3, 1, 1))
            elif hasattr(block, "branch_pool"):
                x = _with_pool(block, x, functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False))
            else:
                x = block(x)
        return np.asarray(x.mean(dim=(2, 3)).double().numpy())


def _with_pool(block: Any, x: Tensor, pooled: Tensor) -> Tensor:
    """An Inception block with another input to its pooling branch, the last of its branches."""
    *branches, _ = block._forward(x)
    return torch.cat([*branches, block.branch_pool(pooled)], dim=1)


class Perception(NamedTuple):
    """MFP of each picture (n)."""

    global_: Values
    """G of eq. 20, at most 1, higher is better."""
    structure: Values
    """S of eq. 21, 0 at best, lower is better; grows with the number of tokens."""

    @property
    def combined(self) -> Values:
        """10 G + 1 S as eq. 22 has it, although the two point in opposite directions."""
        return MFP_GLOBAL_WEIGHT * self.global_ + MFP_STRUCTURE_WEIGHT * self.structure


class DinoFeatures:
    """Class token and keys of a DINO backbone; `name` says of which.

    Raises WeightsError if the file is missing or is not the layout of ViT-S or B with patches of
    8 or 16 px, tensor by tensor.
    """

    def __init__(self, weights: Path) -> None:
        self.weights = weights
        state = _read(weights, DINO_SOURCE)
        kernel = state.get("patch_embed.proj.weight", torch.empty(0, 0, 0, 0))
        width, patch = kernel.shape[0], kernel.shape[-1]
        if width not in _DINO_NAMES or patch not in (8, 16):
            raise WeightsError(f"{weights} is no DINO ViT-S or ViT-B; give {DINO_SOURCE}")
        self.name = f"{_DINO_NAMES[width]}/{patch}"
        self._network = cast(Any, dino_network(width, patch))
        _fill(self._network, state, weights, DINO_SOURCE)

    @torch.inference_mode()
    def describe(self, pictures: Pictures) -> tuple[Tensor, Tensor]:
        """Class token after the last norm (n, d), and the last layer's keys (n, t, d), heads
        side by side, of all t tokens. Pictures (n, h, w, 3) are resized to 224 px."""
        size = (_DINO_SIDE, _DINO_SIDE)
        x = functional.interpolate(_unit(pictures), size=size, mode="bicubic", antialias=True)
        mean, std = (torch.tensor(v)[:, None, None] for v in (_IMAGENET_MEAN, _IMAGENET_STD))
        projected: list[Tensor] = []
        hook = self._network.blocks[-1].attn.qkv.register_forward_hook(
            lambda module, inputs, output: projected.append(output)
        )
        try:
            tokens = self._network.forward_features((x.clamp(0.0, 1.0) - mean) / std)
        finally:
            hook.remove()
        return tokens[:, 0], projected[0].chunk(3, dim=-1)[1]

    @torch.inference_mode()
    def perception(self, output: Pictures, truth: Pictures) -> Perception:
        """Eqs. 20 and 21 of each pair."""
        (token_o, keys_o), (token_t, keys_t) = self.describe(output), self.describe(truth)
        mse = (token_o.double() - token_t.double()).square().mean(dim=1)
        difference = _similarity(keys_o) - _similarity(keys_t)
        structure = torch.linalg.matrix_norm(difference)
        return Perception((1.0 - mse).numpy(), structure.numpy())


def _similarity(keys: Tensor) -> Tensor:
    """Cosine similarity of all pairs of tokens, (n, t, d) -> (n, t, t)."""
    directions = functional.normalize(keys.double(), dim=-1)
    return directions @ directions.transpose(1, 2)


def _unit(pictures: NDArray[np.uint8]) -> Tensor:
    """uint8 (n, h, w, 3) -> float32 (n, 3, h, w) in [0, 1]."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255.0


def _read(path: Path, source: str) -> dict[str, Tensor]:
    """The tensors of a .pth or .safetensors file."""
    if not path.is_file():
        raise WeightsError(f"{path} does not exist; fetch {source}, and give its path")
    try:
        if path.suffix == ".safetensors":
            content: object = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except _UNREADABLE as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise WeightsError(f"{path} cannot be read ({reason}); fetch {source}") from None
    if not isinstance(content, Mapping) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in content.items()
    ):
        raise WeightsError(f"{path} is not a table of tensors; fetch {source}")
    return dict(content)


def _fill(network: nn.Module, state: dict[str, Tensor], path: Path, source: str) -> None:
    """Load strictly; only batch counters, which evaluation never reads, may be missing."""
    own = network.state_dict()
    for name in set(own) - set(state):
        if name.endswith(".num_batches_tracked"):
            state[name] = own[name]
    wrong = sorted(n for n in own if n in state and own[n].shape != state[n].shape)
    missing, left_over = sorted(set(own) - set(state)), sorted(set(state) - set(own))
    if wrong or missing or left_over:
        raise WeightsError(
            f"{path} does not fit: {len(missing)} tensors missing {missing[:2]}, {len(left_over)} "
            f"left over {left_over[:2]}, {len(wrong)} of another shape {wrong[:2]}; give {source}"
        )
    network.load_state_dict(state)
