"""The table of map levels and the scale prompt (method, section 4): the only place for both."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from c2gm.runtime.errors import OptionError

TILE_SIZE = 256
"""Side of a map tile in pixels."""

EARTH_CIRCUMFERENCE_M = 40_075_016.685578488
"""Equatorial circumference of the EPSG:3857 sphere in metres."""


@dataclass(frozen=True, slots=True)
class Level:
    """What the model is told about one zoom level."""

    zoom: int
    scale_denominator: int
    example_feature: str

    @property
    def resolution_m(self) -> float:
        """Ground resolution at the equator, metres per pixel."""
        return EARTH_CIRCUMFERENCE_M / (TILE_SIZE << self.zoom)


LEVELS: dict[int, Level] = {
    level.zoom: level
    for level in (
        Level(10, 500_000, "metropolitan area"),
        Level(11, 250_000, "city"),
        Level(12, 150_000, "town, or city district"),
        Level(13, 70_000, "village, or suburb"),
        Level(14, 35_000, "village, or suburb"),
        Level(15, 15_000, "small road"),
        Level(16, 8_000, "street"),
        Level(17, 4_000, "block, park, addresses"),
        Level(18, 2_000, "some buildings, trees"),
    )
}
"""The trained levels, coarse to fine."""

SPANS: tuple[int, ...] = (2, 1)
"""Cascade spans in levels, preferred first: 2 is called 4X, 1 is called 2X."""


def check_spans(spans: Sequence[int]) -> None:
    """Raises OptionError unless `spans` are some of SPANS, at least one."""
    if not spans or not set(spans) <= set(SPANS):
        raise OptionError(f"spans are {tuple(spans)}, choose from {', '.join(map(str, SPANS))}")


def scale_prompt(zoom: int, span: int | None) -> str:
    """The scale information of a level (eq. 9: s_z + s_r + s_s + s_f) and of its reference.

    `span` is the number of levels up to the reference, None where there is none.
    Raises KeyError for a level outside the table.
    """
    level = LEVELS[zoom]
    reference = (
        "no reference" if span is None else f"{1 << span}X reference from level {zoom - span}"
    )
    return (
        f"map level {level.zoom}, resolution {level.resolution_m:.3f} m per pixel, "
        f"scale 1:{level.scale_denominator:,}, {level.example_feature}, {reference}"
    )


def prompt_keys() -> Iterator[tuple[int, int | None]]:
    """All (level, span) pairs that have a prompt; spans reach only levels of the table."""
    for zoom in LEVELS:
        yield zoom, None
        for span in SPANS:
            if zoom - span in LEVELS:
                yield zoom, span
