"""How a map is to be published: formats, and how their tiles are encoded."""

from collections.abc import Iterable
from dataclasses import dataclass

from c2gm.runtime.errors import OptionError
from c2gm.runtime.levels import TILE_SIZE

FORMATS = ("mbtiles", "pmtiles", "xyz", "cog")
TILE_FORMATS = ("png", "png8", "webp", "jpg")
TILE_SIZES = (TILE_SIZE, 2 * TILE_SIZE)
JPEG_QUALITY = 90
"""At 90 a map tile has 45 dB against the lossless one; text and edges show no rings."""


@dataclass(frozen=True, slots=True)
class PublishOptions:
    """What to publish; the fields are the flags of `c2gm-publish` and `c2gm-infer`.

    `formats`: some of FORMATS; `tile_format`: one of TILE_FORMATS; `tile_size`: pixels a side;
    `quality`: 1..100 of lossy encoders, None: 90 for jpg, lossless for webp; `tms`: count the rows
    of an XYZ folder from the south; `qgis`: write a QGIS layer definition, too.
    """

    formats: tuple[str, ...] = ("mbtiles",)
    tile_format: str = "png"
    tile_size: int = TILE_SIZE
    quality: int | None = None
    tms: bool = False
    qgis: bool = False

    @property
    def keeps_archive(self) -> bool:
        """Whether the MBTiles file that is asked for is the run's own, as it is."""
        as_made = self.tile_format == "png" and self.tile_size == TILE_SIZE
        return "mbtiles" in self.formats and as_made

    @property
    def lossless(self) -> bool:
        """Whether every pixel with data is published as it was made."""
        return self.tile_format == "png" or (self.tile_format == "webp" and self.quality is None)

    @property
    def encoder_quality(self) -> int | None:
        """1..100, None for lossless encoders."""
        if self.tile_format == "jpg":
            return JPEG_QUALITY if self.quality is None else self.quality
        return self.quality

    def warnings(self) -> tuple[str, ...]:
        """What a user should know of these options."""
        if self.tile_format == "jpg" and self.formats != ("cog",):
            return (
                "jpg knows no transparency: pixels without data become white (webp and png keep "
                "them transparent)",
            )
        return ()

    def check(self, levels: Iterable[int]) -> None:
        """Raises OptionError for what makes no sense; `levels`: those of the map."""
        _one_of("--tile-format", self.tile_format, TILE_FORMATS)
        _one_of("--tile-size", self.tile_size, TILE_SIZES)
        if self.quality is not None and self.tile_format not in ("webp", "jpg"):
            raise OptionError(f"--quality is for webp and jpg, --tile-format is {self.tile_format}")
        if self.quality is not None and not 1 <= self.quality <= 100:
            raise OptionError(f"--quality is {self.quality}, expected 1 to 100")
        if self.tms and "xyz" not in self.formats:
            raise OptionError("--tms is for XYZ folders; add --format xyz, or leave it out")
        if self.tile_format == "png8" and "cog" in self.formats:
            raise OptionError("png8 has a palette for each tile, a COG cannot; choose png or webp")
        if self.qgis and self.formats == ("pmtiles",):
            raise OptionError("QGIS does not read raster PMTiles; add another --format for --qgis")
        if self.tile_size > TILE_SIZE and 0 in levels:
            raise OptionError("level 0 has no tile of 512 px; choose --tile-size 256")


def parse_formats(texts: Iterable[str]) -> tuple[str, ...]:
    """`["pmtiles,cog", "xyz"]` -> the formats in the order of FORMATS. Raises OptionError."""
    wanted = {part.strip() for text in texts for part in text.split(",") if part.strip()}
    for name in sorted(wanted):
        _one_of("--format", name, FORMATS)
    if not wanted:
        raise OptionError(f"--format names nothing, expected some of {', '.join(FORMATS)}")
    return tuple(name for name in FORMATS if name in wanted)


def _one_of(option: str, value: object, known: tuple[object, ...]) -> None:
    if value not in known:
        raise OptionError(f"{option} is {value}, expected one of {', '.join(map(str, known))}")
