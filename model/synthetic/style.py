"""How procedural imagery looks: season, light, atmosphere and sensor, and the colours they give.

Colours follow means and spreads of the classes in SWISSIMAGE and NAIP scenes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

Colour = tuple[float, float, float]

SEASONS: Final = ("spring", "summer", "autumn", "dry")
ROOFS: Final = ("tile", "slate", "mixed", "pale")
WATERS: Final = ("dark", "blue", "turquoise", "green", "silt")


@dataclass(frozen=True)
class PaintStyle:
    """One look of the imagery. Angles in degrees, resolutions in metres on the ground.

    `native_resolution` 0 means as fine as the level asked for; `noise` is the standard deviation
    of the sensor in grey levels of 255; `blur` a standard deviation in native pixels;
    `jpeg_quality` 0 means no compression; `relief` and `haze` are shares of 1.
    """

    seed: int = 0
    season: str = "summer"
    roofs: str = "mixed"
    water: str = "blue"
    sun_azimuth: float = 160.0
    sun_elevation: float = 45.0
    relief: float = 0.08
    haze: float = 0.05
    white_balance: Colour = (1.0, 1.0, 1.0)
    gamma: float = 1.0
    contrast: float = 1.0
    brightness: float = 1.0
    saturation: float = 1.0
    noise: float = 1.5
    blur: float = 0.0
    native_resolution: float = 0.0
    jpeg_quality: int = 0
    parcel_size: float = 600.0
    parcel_disorder: float = 0.3
    crown_spacing: float = 8.0

    def __post_init__(self) -> None:
        for name, known in (("season", SEASONS), ("roofs", ROOFS), ("water", WATERS)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is {getattr(self, name)!r}; choose one of {known}")


def random_style(rng: np.random.Generator) -> PaintStyle:
    """Draw a style: everything about it varies, most draws look like ordinary good imagery."""
    tint = rng.normal(0.0, 0.035, 3)
    native = 0.0
    if rng.random() < 0.35:
        native = float(np.exp(rng.uniform(np.log(0.5), np.log(12.0))))
    return PaintStyle(
        seed=int(rng.integers(1 << 30)),
        season=str(rng.choice(SEASONS, p=(0.25, 0.45, 0.15, 0.15))),
        roofs=str(rng.choice(ROOFS)),
        water=str(rng.choice(WATERS)),
        sun_azimuth=float(rng.uniform(90.0, 270.0)),
        sun_elevation=float(rng.uniform(28.0, 65.0)),
        relief=float(rng.choice((0.0, 0.06, 0.12, 0.2))),
        haze=float(rng.beta(1.2, 8.0) * 0.6),
        white_balance=(1.0 + float(tint[0]), 1.0 + float(tint[1]), 1.0 + float(tint[2])),
        gamma=float(np.exp(rng.normal(0.0, 0.16))),
        contrast=float(rng.uniform(0.85, 1.25)),
        brightness=float(np.exp(rng.normal(0.0, 0.14))),
        saturation=float(rng.uniform(0.7, 1.3)),
        noise=float(rng.gamma(1.5, 1.4)),
        blur=float(rng.choice((0.0, 0.0, 0.4, 0.7, 1.0))),
        native_resolution=native,
        jpeg_quality=int(rng.choice((0, 0, 60, 75, 85, 92))),
        parcel_size=float(rng.choice((350.0, 500.0, 650.0, 850.0))),
        parcel_disorder=float(rng.choice((0.05, 0.25, 0.35))),
        crown_spacing=float(rng.uniform(6.0, 11.0)),
    )


# Crops, meadows and rough ground: (colour, weight) by season.
_CROPS: Final[dict[str, tuple[tuple[Colour, float], ...]]] = {
    "spring": (
        ((82, 122, 62), 4),
        ((104, 138, 72), 3),
        ((132, 114, 92), 3),
        ((158, 142, 116), 2),
        ((176, 170, 60), 1),
        ((64, 98, 58), 2),
    ),
    "summer": (
        ((74, 104, 58), 4),
        ((98, 122, 70), 3),
        ((182, 164, 118), 3),
        ((150, 138, 106), 2),
        ((52, 84, 52), 3),
        ((140, 126, 104), 1),
    ),
    "autumn": (
        ((120, 100, 80), 4),
        ((146, 128, 102), 3),
        ((92, 114, 64), 3),
        ((98, 84, 68), 2),
        ((166, 150, 112), 2),
        ((70, 98, 56), 1),
    ),
    "dry": (
        ((176, 156, 122), 4),
        ((196, 178, 142), 3),
        ((150, 132, 102), 3),
        ((110, 116, 72), 1),
        ((84, 108, 58), 1.5),
        ((164, 138, 108), 2),
    ),
}
_MEADOWS: Final[dict[str, tuple[tuple[Colour, float], ...]]] = {
    "spring": (((88, 130, 66), 4), ((104, 142, 78), 3), ((74, 116, 60), 3), ((120, 144, 88), 1)),
    "summer": (((84, 118, 66), 4), ((98, 128, 78), 3), ((72, 108, 60), 3), ((122, 134, 88), 2)),
    "autumn": (((104, 118, 72), 4), ((120, 124, 84), 3), ((88, 108, 64), 2), ((134, 124, 88), 2)),
    "dry": (((142, 134, 94), 4), ((158, 146, 106), 3), ((120, 122, 80), 2), ((172, 158, 118), 2)),
}
_ROUGH: Final[dict[str, tuple[tuple[Colour, float], ...]]] = {
    "spring": (((94, 124, 74), 4), ((108, 128, 84), 2), ((84, 112, 70), 2), ((124, 128, 98), 1)),
    "summer": (((92, 116, 74), 4), ((110, 124, 86), 2), ((80, 104, 66), 2), ((130, 128, 98), 1)),
    "autumn": (((112, 112, 78), 4), ((124, 118, 86), 2), ((96, 104, 70), 2), ((138, 124, 96), 1)),
    "dry": (((168, 150, 120), 4), ((184, 168, 138), 3), ((152, 138, 108), 2), ((130, 124, 92), 1)),
}
_FOREST: Final[dict[str, Colour]] = {
    "spring": (56, 82, 46),
    "summer": (46, 70, 46),
    "autumn": (86, 80, 46),
    "dry": (78, 84, 58),
}
_GARDEN: Final[dict[str, Colour]] = {
    "spring": (104, 124, 84),
    "summer": (104, 118, 88),
    "autumn": (112, 112, 86),
    "dry": (150, 138, 116),
}
_WATER: Final[dict[str, Colour]] = {
    "dark": (28, 38, 44),
    "blue": (44, 62, 72),
    "turquoise": (80, 112, 112),
    "green": (62, 86, 62),
    "silt": (120, 130, 120),
}
_ROOFS: Final[dict[str, tuple[tuple[Colour, float], ...]]] = {
    "tile": (
        ((152, 98, 78), 4),
        ((134, 88, 74), 3),
        ((170, 120, 98), 2),
        ((118, 84, 70), 2),
        ((104, 100, 98), 1),
        ((170, 166, 160), 1),
    ),
    "slate": (
        ((98, 98, 102), 4),
        ((120, 118, 118), 3),
        ((84, 80, 80), 2),
        ((140, 134, 128), 2),
        ((128, 96, 82), 1),
        ((176, 174, 170), 1),
    ),
    "mixed": (
        ((146, 98, 80), 3),
        ((112, 106, 104), 3),
        ((134, 116, 100), 2),
        ((90, 86, 86), 2),
        ((168, 162, 154), 2),
        ((206, 204, 200), 1),
    ),
    "pale": (
        ((196, 188, 174), 4),
        ((212, 206, 196), 3),
        ((170, 160, 146), 2),
        ((150, 122, 102), 1),
        ((228, 226, 222), 2),
        ((128, 124, 120), 1),
    ),
}
BIG_ROOFS: Final[tuple[tuple[Colour, float], ...]] = (
    ((158, 158, 156), 4),
    ((188, 188, 186), 3),
    ((220, 220, 218), 2),
    ((122, 122, 124), 2),
    ((136, 142, 150), 1),
    ((146, 108, 94), 1),
)


@dataclass(frozen=True)
class Palette:
    """The colours of one style, 0 to 255, each class shifted a little by the style's seed."""

    crops: tuple[tuple[Colour, float], ...]
    meadows: tuple[tuple[Colour, float], ...]
    rough: tuple[tuple[Colour, float], ...]
    roofs: tuple[tuple[Colour, float], ...]
    forest: Colour
    garden: Colour
    water: Colour
    asphalt: Colour
    track: Colour
    paving: Colour
    ballast: Colour


def palette(style: PaintStyle) -> Palette:
    """The colours that a style paints with."""
    rng = np.random.default_rng([style.seed, 7])

    def vary(colour: Colour, spread: float = 0.07, hue: float = 0.025) -> Colour:
        factor = np.exp(rng.normal(0.0, spread)) * np.exp(rng.normal(0.0, hue, 3))
        red, green, blue = np.clip(np.asarray(colour) * factor, 4.0, 244.0)
        return float(red), float(green), float(blue)

    def vary_all(mix: tuple[tuple[Colour, float], ...]) -> tuple[tuple[Colour, float], ...]:
        return tuple((vary(c, 0.05), w * float(rng.uniform(0.4, 1.6))) for c, w in mix)

    arid = style.season == "dry"
    return Palette(
        crops=vary_all(_CROPS[style.season]),
        meadows=vary_all(_MEADOWS[style.season]),
        rough=vary_all(_ROUGH[style.season]),
        roofs=vary_all(_ROOFS[style.roofs]),
        forest=vary(_FOREST[style.season], 0.14),
        garden=vary(_GARDEN[style.season]),
        water=vary(_WATER[style.water], 0.15),
        asphalt=vary((148.0, 151.0, 147.0), 0.12, 0.01),
        track=vary((172.0, 158.0, 132.0) if arid else (158.0, 152.0, 130.0), 0.08),
        paving=vary((172.0, 170.0, 164.0), 0.08, 0.012),
        ballast=vary((128.0, 122.0, 112.0), 0.08, 0.012),
    )
