"""From flat colours to a photograph: textures, relief and air on the ground, then the sensor."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from c2gm.model.synthetic.canvas import Byte, Canvas
from c2gm.model.synthetic.style import PaintStyle
from c2gm.model.synthetic.texture import Float, Texture, canopy, fractal, relief, value_noise


def illuminate(
    canvas: Canvas, style: PaintStyle, world: tuple[float, float], cell: tuple[int, int]
) -> Byte:
    """Textured, lit imagery uint8 (height, width, 3) of a drawn canvas.

    `world` is the window's north-west corner in ground metres, `cell` the same in pixels of the
    sensor's grid, on which its noise lies.
    """
    colour, material = canvas.pictures()
    image: Float = colour.astype(np.float32)
    forest, plants, rough = (material[..., i].astype(np.float32) / 255.0 for i in range(3))

    def read(texture: Texture) -> Float:
        return texture.sample(*world, canvas.pixel, canvas.width, canvas.height)

    seed = style.seed % 97
    azimuth = float(round(style.sun_azimuth / 15.0) * 15)
    broad = read(fractal(seed, 24.0, 1.0))
    fine = read(fractal(seed + 1, 1.5, 0.55))
    shade = 1.0 + plants * (0.055 * broad + 0.06 * fine) + rough * (0.03 * broad + 0.045 * fine)
    shade += 0.02 * broad
    crowns_show = canvas.pixel < 20.0 and forest.any()
    if crowns_show:
        light, tone = canopy(seed % 3, float(round(style.crown_spacing)), azimuth)
        stands = read(fractal(seed + 2, 12.0, 1.2))
        shade += forest * (0.34 * read(light) + 0.16 * stands)
        hue = forest * (0.6 * read(tone) + 0.7 * stands)
        image[..., 0] += 9.0 * hue
        image[..., 1] += 5.0 * hue
    else:
        shade += forest * 0.16 * broad
    dry = plants * broad
    image[..., 0] += 4.0 * dry
    image[..., 2] += 2.0 * dry
    if style.relief:
        shade *= 1.0 + style.relief * (0.35 + 0.65 * np.maximum(forest, plants)) * read(
            relief(seed + 3, 30.0, azimuth)
        )
    image *= np.maximum(shade, 0.12)[..., None]
    if style.haze:
        image += style.haze * (np.array([176.0, 188.0, 202.0], np.float32) - image)
    if style.noise:
        for channel in range(3):
            grain = value_noise(seed + 10 + channel, 1.0).sample(
                float(cell[0]), float(cell[1]), 1.0, canvas.width, canvas.height
            )
            image[..., channel] += style.noise * grain
    return np.asarray(np.clip(image + 0.5, 0.0, 255.0), dtype=np.uint8)


def expose(picture: Byte, style: PaintStyle) -> Byte:
    """The camera's and the processor's share: saturation, tone curve, white balance, JPEG."""
    if style.saturation != 1.0:
        grey = picture @ np.array([0.299, 0.587, 0.114], np.float32)
        mixed = grey[..., None] + np.float32(style.saturation) * (picture - grey[..., None])
        picture = np.clip(mixed, 0, 255).astype(np.uint8)
    ramp = np.arange(256) / 255.0
    for_channel = []
    for channel, balance in enumerate(style.white_balance):
        curve = np.clip(ramp * balance * style.brightness, 0, 1) ** style.gamma
        curve = 0.42 + style.contrast * (curve - 0.42)
        table = np.clip(255.0 * curve + 0.5, 0, 255).astype(np.uint8)
        for_channel.append(table[picture[..., channel]])
    picture = np.stack(for_channel, axis=-1)
    if style.jpeg_quality:
        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, "JPEG", quality=style.jpeg_quality)
        picture = np.asarray(Image.open(buffer))
    return picture
