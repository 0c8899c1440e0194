"""Distances between pictures: PSNR and SSIM on Y, as the paper reports them, and Frechet's.

Y is that of YCbCr (BT.601, full range). Everything is computed in float64.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

Pictures = NDArray[np.uint8]
"""RGB (n, height, width, 3), 0..255."""
Valid = NDArray[np.bool_]
"""(n, height, width), true where a pixel counts."""
Values = NDArray[np.float64]

PSNR_CAP_DB = 60.0
"""Identical pictures score this, not infinity, so that means stay finite."""

SSIM_RADIUS = 5
"""SSIM's window is 11 x 11: it has no value this close to a picture's edge."""


def luma(pictures: NDArray[np.uint8]) -> Values:
    """Y in 0..255 of RGB pictures (..., 3)."""
    weights = np.array([0.299, 0.587, 0.114])
    return np.asarray(pictures.astype(np.float64) @ weights, dtype=np.float64)


def psnr_y(output: Pictures, truth: Pictures, valid: Valid | None = None) -> Values:
    """PSNR in dB of each picture (n), capped at `PSNR_CAP_DB`, over its valid pixels.

    Raises ValueError for a picture without any.
    """
    mse = _mean_where((luma(output) - luma(truth)) ** 2, valid)
    floor = 255.0**2 / 10 ** (PSNR_CAP_DB / 10)
    return np.asarray(10 * np.log10(255.0**2 / np.maximum(mse, floor)), dtype=np.float64)


def ssim_y(output: Pictures, truth: Pictures, valid: Valid | None = None) -> Values:
    """SSIM of each picture (n), Wang et al. 2004, over windows whose centre is valid.

    11 x 11 Gaussian window of sigma 1.5, wholly inside the picture; population covariance.
    Raises ValueError for a picture without such a window.
    """
    axis = torch.arange(-SSIM_RADIUS, SSIM_RADIUS + 1, dtype=torch.float64)
    line = torch.exp(-(axis**2) / (2 * 1.5**2))
    line /= line.sum()

    def blur(x: torch.Tensor) -> torch.Tensor:
        return functional.conv2d(
            functional.conv2d(x, line[None, None, :, None]), line[None, None, None]
        )

    a, b = (torch.from_numpy(luma(x))[:, None] for x in (output, truth))
    mean_a, mean_b = blur(a), blur(b)
    var_a, var_b = blur(a * a) - mean_a**2, blur(b * b) - mean_b**2
    covariance = blur(a * b) - mean_a * mean_b
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    score = ((2 * mean_a * mean_b + c1) * (2 * covariance + c2)) / (
        (mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2)
    )
    inner = slice(SSIM_RADIUS, -SSIM_RADIUS)
    return _mean_where(score[:, 0].numpy(), None if valid is None else valid[:, inner, inner])


def _mean_where(values: Values, valid: Valid | None) -> Values:
    if valid is None:
        return np.asarray(values.mean(axis=(1, 2)))
    counts = valid.sum(axis=(1, 2))
    if not counts.all():
        raise ValueError(f"picture {int(np.argmin(counts))} has no valid pixel to score")
    return np.asarray((values * valid).sum(axis=(1, 2)) / counts)


@dataclass(frozen=True)
class Gaussian:
    """N(mean (d), factor @ factor.T) with factor (d, k): the covariance is never formed."""

    mean: Values
    factor: Values

    @classmethod
    def of_samples(cls, features: Values) -> Self:
        """Mean and unbiased covariance of samples (n, d). Raises ValueError for n < 2."""
        count, width = features.shape
        if count < 2:
            raise ValueError(f"{count} sample has no covariance, expected at least 2")
        mean = features.mean(axis=0)
        factor = (features - mean).T / np.sqrt(count - 1)
        return cls(mean, factor) if count <= width else cls.of_moments(mean, factor @ factor.T)

    @classmethod
    def of_moments(cls, mean: Values, covariance: Values) -> Self:
        """From mean (d) and covariance (d, d), whose square root its eigenvectors give."""
        values, vectors = np.linalg.eigh(covariance)
        return cls(mean, vectors * np.sqrt(np.maximum(values, 0.0)))


def frechet_distance(one: Gaussian, other: Gaussian) -> float:
    """|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)), Dowson and Landau 1982; FID is this.

    With C = F F^T the eigenvalues of C1 C2 are the squares of the singular values of F1^T F2, so
    that no square root of a product, nearly singular for few samples, has to be found.
    """
    shift = float(np.sum((one.mean - other.mean) ** 2))
    spread = float(np.sum(one.factor**2) + np.sum(other.factor**2))
    singular = np.linalg.svd(one.factor.T @ other.factor, compute_uv=False)
    return max(0.0, shift + spread - 2.0 * float(singular.sum()))
