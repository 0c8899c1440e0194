"""Flat colours and materials of a window, rasterised from vectors with Skia.

`Canvas` draws everything twice: what colour the ground has (`colour`), and what it is made of
(`material`: red = forest, green = vegetation, blue = rough or built) for textures to work on.
"""

from __future__ import annotations

import numpy as np
import skia
from numpy.typing import NDArray

Colour = tuple[float, float, float]
Byte = NDArray[np.uint8]

FOREST: Colour = (255, 0, 0)
PLANTS: Colour = (0, 255, 0)
ROUGH: Colour = (0, 0, 255)
GARDEN: Colour = (0, 150, 130)
SMOOTH: Colour = (0, 0, 0)


class Canvas:
    """Two pictures of one window in ground metres; `pixel` is the side of a pixel in metres."""

    def __init__(self, x: float, y: float, pixel: float, width: int, height: int) -> None:
        self.x, self.y, self.pixel = x, y, pixel
        self.width, self.height = width, height
        self.matrix = skia.Matrix.Scale(1 / pixel, 1 / pixel).preTranslate(-x, -y)
        self.colour = skia.Surface(width, height)
        self.material = skia.Surface(width, height)
        for surface in (self.colour, self.material):
            surface.getCanvas().clear(skia.ColorBLACK)
            surface.getCanvas().setMatrix(self.matrix)

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """West, north, east, south in metres."""
        return (
            self.x,
            self.y,
            self.x + self.width * self.pixel,
            self.y + self.height * self.pixel,
        )

    def fill(
        self, path: skia.Path, colour: Colour, material: Colour | None, alpha: float = 1.0
    ) -> None:
        """Fill a path; material None leaves what the ground is made of as it was."""
        self.colour.getCanvas().drawPath(path, brush(colour, alpha))
        if material is not None:
            self.material.getCanvas().drawPath(path, brush(material, alpha))

    def shade(self, path: skia.Path, shader: skia.Shader, material: Colour | None) -> None:
        """Fill a path with a picture."""
        self.colour.getCanvas().drawPath(path, skia.Paint(AntiAlias=True, Shader=shader))
        if material is not None:
            self.material.getCanvas().drawPath(path, brush(material))

    def stroke(
        self,
        path: skia.Path,
        width: float,
        colour: Colour,
        material: Colour | None,
        alpha: float = 1.0,
    ) -> None:
        """Draw a line `width` metres wide; thinner than a pixel it fades, as in a sensor."""
        self.colour.getCanvas().drawPath(path, brush(colour, alpha, width))
        if material is not None:
            self.material.getCanvas().drawPath(path, brush(material, alpha, width))

    def pictures(self) -> tuple[Byte, Byte]:
        """Colour and material, each uint8 (height, width, 3)."""
        return as_rgb(self.colour), as_rgb(self.material)


def brush(colour: Colour, alpha: float = 1.0, width: float | None = None) -> skia.Paint:
    """A paint of one colour (0 to 255): a fill, or a stroke of `width` metres."""
    red, green, blue = (min(255, max(0, round(c))) for c in colour)
    paint = skia.Paint(AntiAlias=True, Color=skia.Color(red, green, blue, round(255 * alpha)))
    if width is not None:
        paint.setStyle(skia.Paint.kStroke_Style)
        paint.setStrokeWidth(width)
        paint.setStrokeJoin(skia.Paint.kRound_Join)
        paint.setStrokeCap(skia.Paint.kRound_Cap)
    return paint


def as_rgb(surface: skia.Surface) -> Byte:
    """The pixels of an opaque surface, uint8 (height, width, 3)."""
    pixels: Byte = surface.toarray(colorType=skia.ColorType.kRGBA_8888_ColorType)
    return pixels[..., :3]


def stripes(
    colour: Colour, spacing: float, share: float, angle: float, alpha: float
) -> skia.Shader:
    """Parallel rows `spacing` metres apart, `share` of each darkened: ploughing, drills."""
    red, green, blue = (int(c) for c in colour)
    ink = skia.Color(red, green, blue, round(255 * alpha))
    clear = skia.Color(red, green, blue, 0)
    matrix = skia.Matrix.RotateRad(angle)
    return skia.GradientShader.MakeLinear(
        points=[skia.Point(0, 0), skia.Point(0, spacing)],
        colors=[ink, ink, clear, clear],
        positions=[0.0, share * 0.7, share, 1.0],
        mode=skia.TileMode.kRepeat,
        localMatrix=matrix,
    )
