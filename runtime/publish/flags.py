"""The options of publishing, as `c2gm-infer` and `c2gm-publish` spell them."""

from collections.abc import Sequence
from typing import Annotated

import typer

from c2gm.runtime.levels import TILE_SIZE
from c2gm.runtime.publish.options import (
    FORMATS,
    JPEG_QUALITY,
    TILE_FORMATS,
    TILE_SIZES,
    PublishOptions,
    parse_formats,
)

Format = Annotated[
    list[str] | None,
    typer.Option(
        "--format",
        help=f"Some of {', '.join(FORMATS)}; more with commas, or the option again. xyz is a "
        "folder with TileJSON, cog a GeoTIFF for every level. Default of c2gm-infer: mbtiles.",
    ),
]
TileFormat = Annotated[
    str,
    typer.Option(
        help=f"One of {', '.join(TILE_FORMATS)}. png and webp are lossless; png8 is a sixth of "
        "png, with 256 colours a tile; jpg and webp with --quality are smaller still."
    ),
]
TileSize = Annotated[
    int,
    typer.Option(
        help=f"Pixels a side, {' or '.join(map(str, TILE_SIZES))}: for fine screens. The levels of "
        "512 px are one less, of the same detail."
    ),
]
Quality = Annotated[
    int | None,
    typer.Option(
        help=f"1-100. Default: {JPEG_QUALITY} for jpg; webp is lossless without it, and with 90 "
        "a fifteenth of png."
    ),
]
Tms = Annotated[bool, typer.Option("--tms", help="Count rows of an XYZ folder from the south.")]
Qgis = Annotated[
    bool, typer.Option("--qgis", help="Also write a QGIS layer definition (.qlr) of the outputs.")
]


def publish_options(
    formats: Sequence[str] | None,
    tile_format: str = "png",
    tile_size: int = TILE_SIZE,
    quality: int | None = None,
    tms: bool = False,
    qgis: bool = False,
) -> PublishOptions:
    """The options as one value. Raises OptionError for unknown formats."""
    chosen = ("mbtiles",) if formats is None else parse_formats(formats)
    return PublishOptions(chosen, tile_format, tile_size, quality, tms, qgis)
