"""Scores of painted tiles against the true maps: per tile, then as means and distances of sets."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from c2gm.model.evaluation.class_scores import ROAD_TOLERANCE_PX, Counts, class_counts
from c2gm.model.evaluation.feature_metrics import (
    DINO_SOURCE,
    INCEPTION_SOURCE,
    DinoFeatures,
    InceptionFeatures,
)
from c2gm.model.evaluation.lpips import HOW_TO_INSTALL, AlexNetFeatures
from c2gm.model.evaluation.metrics import (
    Gaussian,
    Pictures,
    Valid,
    Values,
    frechet_distance,
    psnr_y,
    ssim_y,
)
from c2gm.model.maps.classes import CLASSES

Indices = NDArray[np.int64]

FEWEST_TILES = {"fd_alexnet": 256, "fid": 2048}
"""Below as many samples as features the covariance is singular and the distance biased upwards."""

METRICS: dict[str, dict[str, str]] = {
    "psnr_y": {
        "unit": "dB",
        "better": "higher",
        "of": "mean over tiles of PSNR on Y, valid pixels",
    },
    "ssim_y": {"unit": "", "better": "higher", "of": "mean over tiles of SSIM on Y, valid pixels"},
    **{
        f"iou_{name}": {
            "unit": "",
            "better": "higher",
            "of": f"intersection over union of class {name}, over all pixels of the tiles",
        }
        for name in CLASSES
    },
    "road_completeness": {
        "unit": "",
        "better": "higher",
        "of": f"share of true road pixels with a painted one within {ROAD_TOLERANCE_PX} px",
    },
    "road_correctness": {
        "unit": "",
        "better": "higher",
        "of": f"share of painted road pixels with a true one within {ROAD_TOLERANCE_PX} px",
    },
    "lpips": {
        "unit": "",
        "better": "lower",
        "of": "mean over tiles of LPIPS 0.1 over AlexNet",
    },
    "fd_alexnet": {
        "unit": "",
        "better": "lower",
        "of": "Frechet distance of AlexNet's last convolution, pooled: 256 features",
    },
    "fid": {
        "unit": "",
        "better": "lower",
        "of": "Frechet distance of FID-Inception-v3 pool features",
    },
    "mfp_g": {"unit": "", "better": "higher", "of": "mean of G, eq. 20: 1 - MSE of class tokens"},
    "mfp_s": {
        "unit": "",
        "better": "lower",
        "of": "mean of S, eq. 21: distance of key similarities",
    },
    "mfp": {
        "unit": "",
        "better": "not defined: table 3 says higher, the text lower; read mfp_g and mfp_s",
        "of": "mean of 10 G + 1 S, eq. 22 as written",
    },
}
"""What a report may hold, with the direction of each."""


@dataclass(frozen=True)
class Networks:
    """Feature networks that were asked for."""

    inception: InceptionFeatures | None = None
    dino: DinoFeatures | None = None
    alexnet: AlexNetFeatures | None = None

    @property
    def pooled(self) -> dict[str, Callable[[Pictures], Values]]:
        """What gives features for a Frechet distance, by the distance's name in `METRICS`."""
        found: dict[str, Callable[[Pictures], Values]] = {}
        if self.alexnet is not None:
            found["fd_alexnet"] = self.alexnet.features
        if self.inception is not None:
            found["fid"] = self.inception.features
        return found

    def left_out(self) -> dict[str, str]:
        """What a report lacks without them, and which file would bring it."""
        missing = {}
        if self.alexnet is None:
            missing["lpips"] = missing["fd_alexnet"] = f"{HOW_TO_INSTALL}, or --lpips-weights FILE"
        if self.inception is None:
            missing["fid"] = f"--inception-weights FILE was not given; fetch {INCEPTION_SOURCE}"
        if self.dino is None:
            missing["mfp"] = f"--dino-weights FILE was not given; fetch {DINO_SOURCE}"
        return missing


class TrueMaps:
    """The maps that tiles should become: `pictures` (n, 256, 256, 3), and where they count.

    `networks` say what is compared beyond PSNR and SSIM.
    """

    def __init__(self, pictures: Pictures, valid: Valid, networks: Networks) -> None:
        self.pictures, self.valid, self.networks = pictures, valid, networks

    def __len__(self) -> int:
        return len(self.pictures)

    @cached_property
    def features(self) -> dict[str, Values]:
        """Features (n, d) for every Frechet distance that is asked for, computed once."""
        return {
            name: np.concatenate([describe(picture[None]) for picture in self.pictures])
            for name, describe in self.networks.pooled.items()
        }


class Scores:
    """Scores of one painter of maps, tile by tile as they are added."""

    def __init__(self, truth: TrueMaps) -> None:
        self._truth = truth
        self._painted = np.zeros(len(truth), dtype=bool)
        self._values: dict[str, Values] = {}
        self._counts: dict[str, Counts] = {}
        self._features = {name: np.full_like(x, np.nan) for name, x in truth.features.items()}

    def add(self, tiles: Indices, pictures: Pictures) -> None:
        """Score the pictures (len(tiles), 256, 256, 3) of some of the tiles."""
        truth, networks = self._truth.pictures[tiles], self._truth.networks
        valid = self._truth.valid[tiles]
        values = {
            "psnr_y": psnr_y(pictures, truth, valid),
            "ssim_y": ssim_y(pictures, truth, valid),
        }
        if networks.dino is not None:
            perception = networks.dino.perception(pictures, truth)
            values["mfp_g"], values["mfp_s"] = perception.global_, perception.structure
            values["mfp"] = perception.combined
        if networks.alexnet is not None:
            values["lpips"] = networks.alexnet.distance(pictures, truth)
        for name, scores in values.items():
            self._values.setdefault(name, np.full(len(self._truth), np.nan))[tiles] = scores
        for name, counts in class_counts(pictures, truth, valid).items():
            self._counts.setdefault(name, np.zeros((len(self._truth), 2), np.int64))[tiles] = counts
        for name, describe in networks.pooled.items():
            self._features[name][tiles] = describe(pictures)
        self._painted[tiles] = True

    @property
    def means(self) -> list[str]:
        """Names of the scores whose mean over tiles counts, in the order of `tile`."""
        return list(self._values)

    @property
    def ratios(self) -> list[str]:
        """Names of the scores that are a sum of pixels over another, in the order of `tile`."""
        return list(self._counts)

    def tile(self, index: int) -> list[float] | None:
        """Of one tile: every mean's value, then numerator and denominator (whole numbers) of every
        ratio; None if it was not painted."""
        if not self._painted[index]:
            return None
        values: list[float] = [float(scores[index]) for scores in self._values.values()]
        for counts in self._counts.values():
            values += counts[index].tolist()
        return values

    def of(self, tiles: Indices) -> dict[str, float | None]:
        """Means over tiles, class scores and Frechet distances of their set; None where one was not
        painted.

        A distance is None for a single tile too, a class score where nobody shows the class. Values
        are those of `METRICS`.
        """
        whole = len(tiles) > 0 and bool(self._painted[tiles].all())
        result: dict[str, float | None] = {
            name: float(values[tiles].mean()) if whole else None
            for name, values in self._values.items()
        }
        for name, counts in self._counts.items():
            part, all_of_it = counts[tiles].sum(axis=0).tolist()
            result[name] = part / all_of_it if whole and all_of_it else None
        for name, features in self._features.items():
            result[name] = None
            if whole and len(tiles) > 1:
                made = Gaussian.of_samples(features[tiles])
                true = Gaussian.of_samples(self._truth.features[name][tiles])
                result[name] = frechet_distance(made, true)
        return result
