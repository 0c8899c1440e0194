"""The one map style: which classes are drawn from which level, in what colour, order and width.

A web-map style without labels. Colours are few and far enough apart (PALETTE, at least 12 in RGB
between any two) that classes can be read back from pixels. Widths are in level pixels.
"""

from dataclasses import dataclass

Colour = tuple[int, int, int]

LEVELS = tuple(range(10, 19))

PALETTE: dict[str, Colour] = {
    "background": (248, 244, 238),
    "residential": (230, 226, 222),
    "commercial": (244, 220, 222),
    "industrial": (224, 214, 234),
    "railway": (208, 210, 222),
    "institution": (250, 228, 186),
    "farmland": (242, 238, 206),
    "grass": (214, 236, 190),
    "park": (184, 228, 164),
    "cemetery": (182, 206, 184),
    "wetland": (196, 228, 216),
    "sand": (250, 238, 164),
    "rock": (200, 200, 196),
    "ice": (224, 244, 250),
    "wood": (170, 210, 158),
    "pitch": (144, 214, 178),
    "water": (156, 198, 238),
    "block": (222, 208, 198),
    "building": (212, 196, 182),
    "building_edge": (184, 166, 152),
    "street": (255, 255, 255),
    "street_edge": (196, 190, 186),
    "secondary": (255, 240, 150),
    "secondary_edge": (214, 186, 96),
    "primary": (254, 212, 110),
    "primary_edge": (212, 160, 60),
    "motorway": (240, 148, 90),
    "motorway_edge": (196, 98, 48),
    "track": (188, 152, 104),
    "path": (226, 158, 138),
    "rail": (146, 146, 160),
}
BACKGROUND = PALETTE["background"]


@dataclass(frozen=True)
class AreaRule:
    """How the polygons of some kinds become one calm area class.

    From `level` on they are drawn in the PALETTE colour `name`. `close` fills gaps and `open`
    removes necks narrower than twice that many pixels (levels below `detailed`); parts below
    `smallest` square pixels vanish, holes below it are filled.
    """

    name: str
    layer: str
    kinds: tuple[str, ...]
    level: int
    close: float = 1.0
    open: float = 0.8
    smallest: float = 24.0
    detailed: int = 16


@dataclass(frozen=True)
class LineRule:
    """Lines of some kinds: PALETTE colour, optional casing colour, width in pixels per level.

    `widths` begins at level `level` and ends at level 18. Loose ends shorter than `shortest` pixels
    and detached pieces shorter than four times that vanish, and so does, below level 16, what runs
    within `apart` pixels of a longer line (bundles of tracks).
    """

    kinds: tuple[str, ...]
    level: int
    widths: tuple[float, ...]
    colour: str
    edge: str | None = None
    shortest: float = 3.0
    apart: float = 0.0

    def width(self, level: int) -> float | None:
        """Width in pixels at `level`, None where the class is not drawn yet."""
        return self.widths[level - self.level] if level >= self.level else None


# Bottom to top. The built-up ground of levels 10-13 and the blocks of level 14 are made from
# buildings by the cartographer and drawn with the residential areas and the buildings.
AREAS: tuple[AreaRule, ...] = (
    AreaRule("farmland", "landcover", ("farmland",), 10),
    AreaRule("residential", "landuse", ("residential", "suburb", "quarter", "neighbourhood"), 10),
    AreaRule("commercial", "landuse", ("commercial", "retail"), 11),
    AreaRule("industrial", "landuse", ("industrial", "military", "garages", "landfill"), 10),
    AreaRule("railway", "landuse", ("railway", "bus_station"), 13),
    AreaRule(
        "institution",
        "landuse",
        ("school", "university", "college", "kindergarten", "hospital", "library"),
        13,
    ),
    AreaRule("rock", "landuse", ("quarry",), 12),
    AreaRule("grass", "landcover", ("grass",), 10, open=1.2, smallest=30.0),
    AreaRule("park", "landcover", ("park",), 11),
    AreaRule("park", "landuse", ("zoo", "theme_park"), 12),
    AreaRule("cemetery", "landuse", ("cemetery",), 13),
    AreaRule("rock", "landcover", ("rock",), 10),
    AreaRule("sand", "landcover", ("sand",), 11, smallest=16.0),
    AreaRule("ice", "landcover", ("ice",), 10),
    AreaRule("wood", "landcover", ("wood",), 10, smallest=30.0),
    AreaRule("wetland", "landcover", ("wetland",), 11),
    AreaRule("pitch", "landuse", ("pitch", "playground", "stadium", "track"), 14, smallest=12.0),
)
WATER_AREAS: tuple[AreaRule, ...] = (
    AreaRule(
        "water",
        "water",
        ("ocean", "river", "lake", "dock", "pond", "swimming_pool"),
        10,
        close=0.7,
        open=0.4,
        smallest=8.0,
    ),
)
TRAFFIC_AREAS: tuple[AreaRule, ...] = (
    AreaRule("background", "transportation", ("pier",), 14, close=0.3, open=0.0, smallest=6.0),
    AreaRule("street", "transportation", ("pedestrian", "path", "minor", "service"), 15),
)
BUILDINGS = AreaRule("building", "building", ("building",), 15, smallest=4.0)

WATERWAYS: tuple[LineRule, ...] = (
    LineRule(("ditch", "drain"), 15, (0.7, 1, 1.6, 2.6), "water"),
    LineRule(("stream",), 13, (0.7, 0.9, 1.2, 1.8, 2.6, 4.2), "water"),
    LineRule(("canal",), 11, (1, 1.2, 1.5, 2, 3, 4.5, 7, 11), "water"),
    LineRule(("river",), 10, (1.2, 1.4, 1.8, 2.4, 3.2, 4.5, 6.5, 10, 16), "water"),
)

_STREET = ("street", "street_edge")
_SECONDARY = ("secondary", "secondary_edge")
_PRIMARY = ("primary", "primary_edge")
_MOTORWAY = ("motorway", "motorway_edge")

# Bottom to top; all casings lie under all fills. These lie under the buildings as well: what is
# inside or below a building cannot be seen from above.
LANES: tuple[LineRule, ...] = (
    LineRule(("path",), 16, (1, 1.5, 2.2), "path", shortest=6),
    LineRule(("track",), 15, (0.9, 1.5, 2.2, 3.4), "track"),
    LineRule(("driveway",), 17, (2.6, 5.5), *_STREET, shortest=6),
    LineRule(("service", "busway", "raceway"), 15, (1.3, 2.2, 4.2, 8), *_STREET),
    LineRule(("pedestrian",), 15, (1.3, 2.4, 4.5, 8.5), *_STREET),
)
ROADS: tuple[LineRule, ...] = (
    LineRule(("minor",), 14, (1.3, 2.6, 4.6, 8.5, 15), *_STREET),
    LineRule(("tertiary", "tertiary_link"), 13, (1.6, 2.4, 4.2, 7, 11.5, 19), *_STREET),
    LineRule(("secondary_link",), 14, (1.8, 3, 5, 8.5, 14), *_SECONDARY),
    LineRule(("primary_link", "trunk_link"), 13, (1.6, 2.2, 3.4, 5.5, 9, 15), *_PRIMARY),
    LineRule(("motorway_link",), 12, (1.2, 1.7, 2.4, 3.8, 6, 9.5, 16), *_MOTORWAY),
    LineRule(("secondary",), 12, (1.5, 2.2, 3.2, 5, 8, 13, 21), *_SECONDARY),
    LineRule(("primary", "trunk"), 10, (1.2, 1.5, 2, 2.8, 3.8, 6, 9, 14.5, 23), *_PRIMARY),
    LineRule(("motorway",), 10, (1.8, 2.2, 2.8, 3.6, 4.6, 7, 10, 16, 26), *_MOTORWAY),
)
RAILS: tuple[LineRule, ...] = (
    LineRule(("siding",), 15, (0.7, 1, 1.4, 2.2), "rail", apart=2.5),
    LineRule(("tram",), 16, (0.9, 1.3, 2), "rail"),
    LineRule(
        ("rail", "narrow_gauge", "light_rail", "subway", "funicular", "monorail"),
        11,
        (0.8, 0.9, 1.1, 1.4, 1.7, 2, 2.6, 3.6),
        "rail",
        apart=3.0,
    ),
)

# Width of one side of a road's casing, level 10 to 18.
CASING = (0.4, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0, 1.1, 1.3)
# Largest distance in pixels that drawing reaches beyond a geometry.
REACH = 20.0
