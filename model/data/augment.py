"""Augmentation of training pairs: how imagery looks, where it ends, how references go wrong."""

from functools import lru_cache
from io import BytesIO

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageFilter

from c2gm.model.data.mosaic import Picture
from c2gm.model.maps.cartography import BACKGROUND

Mask = NDArray[np.bool_]


def vary_imagery(picture: Picture, rng: Generator) -> Picture:
    """Another light, atmosphere, sensor and native resolution; RGBA in, RGBA out."""
    image = Image.fromarray(np.ascontiguousarray(picture[..., :3]))
    if rng.random() < 0.3:
        image = _lose_resolution(image, rng)
    saturation = 0.0 if rng.random() < 0.04 else float(rng.uniform(0.5, 1.5))
    if abs(saturation - 1.0) > 0.08:
        image = ImageEnhance.Color(image).enhance(saturation)
    if rng.random() < 0.15:
        image = _stretch(image, picture[..., 3] > 0, rng)
    image = image.point(_tone_tables(rng))
    colours = np.array(image)
    if rng.random() < 0.35:
        colours = _add_noise(colours, float(rng.uniform(1.0, 7.0)), rng)
    return np.concatenate([colours, picture[..., 3:]], axis=2)


def _lose_resolution(image: Image.Image, rng: Generator) -> Image.Image:
    if rng.random() < 0.4:
        return image.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.4, 1.4))))
    factor = float(np.exp(rng.uniform(np.log(1.3), np.log(4.0))))
    width, height = max(8, int(image.width / factor)), max(8, int(image.height / factor))
    small = image.resize((width, height), Image.Resampling.BOX)
    return small.resize(image.size, Image.Resampling.BICUBIC)


def _stretch(image: Image.Image, valid: Mask, rng: Generator) -> Image.Image:
    """Every channel stretched between its own percentiles, as many products are delivered."""
    if not valid.any():
        return image
    colours = np.asarray(image)
    share = float(rng.uniform(0.2, 2.0))
    low, high = np.percentile(colours[valid], (share, 100.0 - share), axis=0)
    tone = np.arange(256)[None, :] - low[:, None]
    tone = tone / np.maximum(high - low, 24.0)[:, None]
    return image.point(np.clip(tone * 255.0 + 0.5, 0, 255).astype(np.uint8).ravel().tolist())


def _tone_tables(rng: Generator) -> list[int]:
    """One look-up table per channel: gamma, contrast, brightness, white balance, haze."""
    tone = np.linspace(0.0, 1.0, 256)[None, :]
    tone = tone ** np.exp(rng.normal(0.0, 0.18) + rng.normal(0.0, 0.05, (3, 1)))
    tone = np.maximum((tone - 0.4) * np.exp(rng.normal(0.0, 0.18)) + 0.4, 0.0)
    tone = tone * np.exp(rng.normal(0.0, 0.12) + rng.normal(0.0, 0.06, (3, 1)))
    if rng.random() < 0.25:
        haze = rng.uniform(0.0, 0.35)
        tone = tone * (1.0 - haze) + haze * rng.uniform(0.55, 0.9, (3, 1))
    levels = np.clip(tone * 255.0 + 0.5, 0, 255).astype(np.uint8)
    return [int(value) for value in levels.ravel()]


@lru_cache(maxsize=1)
def _noise_bank() -> NDArray[np.float32]:
    return np.random.default_rng(0).standard_normal((1024, 1024, 3)).astype(np.float32)


def _add_noise(colours: Picture, deviation: float, rng: Generator) -> Picture:
    bank, (height, width) = _noise_bank(), colours.shape[:2]
    top, left = rng.integers(bank.shape[0] - height), rng.integers(bank.shape[1] - width)
    noise = bank[top : top + height, left : left + width] * np.float32(deviation)
    return np.clip(colours + noise, 0, 255).astype(np.uint8)


def fill_gaps(picture: Picture, value: int) -> None:
    """Paint invalid pixels black or white and call them valid, as scenes without a mask do."""
    picture[picture[..., 3] == 0] = (value, value, value, 255)


def random_footprint(valid: Mask, rng: Generator) -> Mask:
    """A rotated rectangle around some valid pixel: true where the scene goes on, as `valid`."""
    height, width = valid.shape
    rows, columns = np.nonzero(valid[::8, ::8])
    if not len(rows):
        return np.ones_like(valid)
    pick = rng.integers(len(rows))
    y, x = float(rows[pick] * 8), float(columns[pick] * 8)
    angle = 0.0 if rng.random() < 0.4 else float(rng.uniform(-0.6, 0.6))
    across, down = rng.uniform(0.15, 0.6, 2) * (width, height)
    dx = np.arange(width, dtype=np.float32)[None, :] - np.float32(x)
    dy = np.arange(height, dtype=np.float32)[:, None] - np.float32(y)
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    inside = np.abs(dx * cos + dy * sin) <= across
    return np.asarray(inside & (np.abs(dy * cos - dx * sin) <= down))


def degrade_reference(reference: Picture, rng: Generator) -> Picture:
    """What generation does to a map, done to a true one (stage 2); RGBA at the parent's own size.

    Places left empty or drawn as somewhere else, thin features lost, edges soft or displaced by a
    pixel, colours off, compression-like ringing.
    """
    image = Image.fromarray(np.ascontiguousarray(reference[..., :3]))
    if rng.random() < 0.4:
        image = _mistake_places(image, rng)
    if rng.random() < 0.3:
        image = _forget_thin(image, rng)
    if rng.random() < 0.5:
        image = image.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.3, 1.1))))
    if rng.random() < 0.3:
        shift = rng.uniform(-1.2, 1.2, 2)
        image = image.transform(
            image.size,
            Image.Transform.AFFINE,
            (1, 0, float(shift[0]), 0, 1, float(shift[1])),
            Image.Resampling.BILINEAR,
            fillcolor=BACKGROUND,
        )
    if rng.random() < 0.4:
        buffer = BytesIO()
        image.save(buffer, "JPEG", quality=int(rng.integers(25, 85)), subsampling=0)
        image = Image.open(buffer).convert("RGB")
    colours = np.asarray(image)
    if rng.random() < 0.5:
        offset = rng.normal(0.0, 3.0, 3) + rng.normal(0.0, 2.0)
        colours = np.clip(colours + offset, 0, 255).astype(np.uint8)
    return np.concatenate([colours, reference[..., 3:]], axis=2)


def _forget_thin(image: Image.Image, rng: Generator) -> Image.Image:
    """Blots where everything thinner than about three pixels is gone."""
    smooth = image.filter(ImageFilter.MedianFilter(5 if rng.random() < 0.5 else 3))
    return Image.composite(smooth, image, _blots(image.size, rng.uniform(0.2, 0.8), rng))


def _mistake_places(image: Image.Image, rng: Generator) -> Image.Image:
    """Blots of plain background, or of what the map shows elsewhere: the imagery knows better."""
    if rng.random() < 0.6:
        wrong = Image.new("RGB", image.size, BACKGROUND)
    else:
        wrong = Image.fromarray(turn(np.asarray(image), int(rng.integers(1, 8))))
    blots = _blots(image.size, rng.uniform(0.15, 0.6), rng)
    return Image.composite(wrong, image, blots.point(lambda value: 255 * (value > 127)))


def _blots(size: tuple[int, int], share: float, rng: Generator) -> Image.Image:
    """A soft mask whose blots, a fifth of the side wide, cover about `share` of it."""
    coarse = rng.random((5, 5)) < share
    blots = Image.fromarray((coarse * 255).astype(np.uint8))
    return blots.resize(size, Image.Resampling.BILINEAR)


def turn(picture: Picture, symmetry: int) -> Picture:
    """One of the eight symmetries of the square (0..7); 0 changes nothing."""
    turned = np.rot90(picture, symmetry & 3)
    return np.ascontiguousarray(turned[:, ::-1] if symmetry & 4 else turned)
