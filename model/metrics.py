"""Picture scores on the Y channel of YCbCr (BT.601, full range), as the paper reports them."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

PSNR_CAP_DB = 60.0
"""Identical pictures score this, not infinity, so that means stay finite."""


def luma(pictures: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Y in 0..255 of RGB pictures (..., 3)."""
    weights = np.array([0.299, 0.587, 0.114])
    return np.asarray(pictures.astype(np.float64) @ weights, dtype=np.float64)


def psnr_y(output: NDArray[np.uint8], truth: NDArray[np.uint8]) -> NDArray[np.float64]:
    """PSNR in dB of each picture, (n, h, w, 3) -> (n,), capped at `PSNR_CAP_DB`."""
    mse = np.mean((luma(output) - luma(truth)) ** 2, axis=(1, 2))
    floor = 255.0**2 / 10 ** (PSNR_CAP_DB / 10)
    return np.asarray(10 * np.log10(255.0**2 / np.maximum(mse, floor)), dtype=np.float64)


def ssim_y(output: NDArray[np.uint8], truth: NDArray[np.uint8]) -> NDArray[np.float64]:
    """SSIM of each picture, (n, h, w, 3) -> (n,), Wang et al. 2004.

    11 x 11 Gaussian window of sigma 1.5, valid positions only, population covariance.
    """
    axis = torch.arange(11, dtype=torch.float64) - 5
    line = torch.exp(-(axis**2) / (2 * 1.5**2))
    kernel = (line[:, None] * line[None, :] / line.sum() ** 2)[None, None]

    def blur(x: torch.Tensor) -> torch.Tensor:
        return functional.conv2d(x, kernel)

    a, b = (torch.from_numpy(luma(x))[:, None] for x in (output, truth))
    mean_a, mean_b = blur(a), blur(b)
    var_a, var_b = blur(a * a) - mean_a**2, blur(b * b) - mean_b**2
    covariance = blur(a * b) - mean_a * mean_b
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    score = ((2 * mean_a * mean_b + c1) * (2 * covariance + c2)) / (
        (mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2)
    )
    return np.asarray(score.mean(dim=(1, 2, 3)).numpy(), dtype=np.float64)
