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
    "rock": (212, 206, 196),
    "ice": (224, 244, 250),
    "wood": (162, 204, 150),
    "pitch": (144, 214, 178),
    "water": (156, 198, 238),
    "block": (218, 202, 190),
    "building": (204, 186, 172),
    "building_edge": (180, 160, 146),
    "street": (255, 255, 255),
    "street_edge": (196, 190, 186),
    "secondary": (255, 240, 150),
    "secondary_edge": (214, 186, 96),
    "primary": (254, 212, 110),
    "primary_edge": (212, 160, 60),
    "motorway": (240, 148, 90),
    "motorway_edge": (196, 98, 48),
    "track": (188, 152, 104),
    "path": (214, 128, 104),
    "rail": (132, 132, 146),
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
    and detached pieces shorter than four times that vanish.
    """

    name: str
    layer: str
    kinds: tuple[str, ...]
    level: int
    widths: tuple[float, ...]
    colour: str
    edge: str | None = None
    shortest: float = 3.0

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
    LineRule("ditch", "waterway", ("ditch", "drain"), 15, (0.7, 1.0, 1.6, 2.6), "water"),
    LineRule("stream", "waterway", ("stream",), 13, (0.7, 0.9, 1.2, 1.8, 2.6, 4.2), "water"),
    LineRule("canal", "waterway", ("canal",), 11, (1.0, 1.2, 1.5, 2.0, 3, 4.5, 7, 11), "water"),
    LineRule(
        "river", "waterway", ("river",), 10, (1.2, 1.4, 1.8, 2.4, 3.2, 4.5, 6.5, 10, 16), "water"
    ),
)
# Bottom to top; all casings of a level lie under all fills.
ROADS: tuple[LineRule, ...] = (
    LineRule("path", "transportation", ("path",), 16, (1.1, 1.6, 2.4), "path"),
    LineRule("track", "transportation", ("track",), 15, (0.9, 1.5, 2.2, 3.4), "track"),
    LineRule(
        "driveway", "transportation", ("driveway",), 17, (2.6, 5.5), "street", "street_edge", 6.0
    ),
    LineRule(
        "service",
        "transportation",
        ("service", "busway", "raceway"),
        15,
        (1.3, 2.2, 4.2, 8.0),
        "street",
        "street_edge",
    ),
    LineRule(
        "pedestrian",
        "transportation",
        ("pedestrian",),
        15,
        (1.3, 2.4, 4.5, 8.5),
        "street",
        "street_edge",
    ),
    LineRule(
        "minor", "transportation", ("minor",), 14, (1.3, 2.6, 4.6, 8.5, 15), "street", "street_edge"
    ),
    LineRule(
        "tertiary",
        "transportation",
        ("tertiary", "tertiary_link"),
        13,
        (1.6, 2.4, 4.2, 7, 11.5, 19),
        "street",
        "street_edge",
    ),
    LineRule(
        "secondary_link",
        "transportation",
        ("secondary_link",),
        14,
        (1.8, 3.0, 5.0, 8.5, 14),
        "secondary",
        "secondary_edge",
    ),
    LineRule(
        "primary_link",
        "transportation",
        ("primary_link", "trunk_link"),
        13,
        (1.6, 2.2, 3.4, 5.5, 9, 15),
        "primary",
        "primary_edge",
    ),
    LineRule(
        "motorway_link",
        "transportation",
        ("motorway_link",),
        12,
        (1.2, 1.7, 2.4, 3.8, 6, 9.5, 16),
        "motorway",
        "motorway_edge",
    ),
    LineRule(
        "secondary",
        "transportation",
        ("secondary",),
        12,
        (1.5, 2.2, 3.2, 5, 8, 13, 21),
        "secondary",
        "secondary_edge",
    ),
    LineRule(
        "primary",
        "transportation",
        ("primary", "trunk"),
        10,
        (1.2, 1.5, 2.0, 2.8, 3.8, 6, 9, 14.5, 23),
        "primary",
        "primary_edge",
    ),
    LineRule(
        "motorway",
        "transportation",
        ("motorway",),
        10,
        (1.8, 2.2, 2.8, 3.6, 4.6, 7, 10, 16, 26),
        "motorway",
        "motorway_edge",
    ),
)
RAILS: tuple[LineRule, ...] = (
    LineRule("siding", "transportation", ("siding",), 15, (0.7, 1.0, 1.4, 2.2), "rail"),
    LineRule("tram", "transportation", ("tram",), 16, (0.9, 1.3, 2.0), "rail"),
    LineRule(
        "rail",
        "transportation",
        ("rail", "narrow_gauge", "light_rail", "subway", "funicular", "monorail"),
        11,
        (0.7, 0.9, 1.1, 1.4, 1.7, 2.0, 2.6, 3.6),
        "rail",
    ),
)

# Width of one side of a road's casing, level 10 to 18.
CASING = (0.4, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0, 1.1, 1.3)
# Largest distance in pixels that drawing reaches beyond a geometry.
REACH = 20.0
