"""A QGIS layer definition (.qlr): drag it into QGIS, and all outputs are layers with names.

Written as QGIS reads it (QgsLayerDefinition::loadLayerDefinition, QgsMapLayer::readLayerXml): data
sources relative to the file. What is left out (the renderer, for one) QGIS takes from the raster.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote
from xml.etree import ElementTree

from c2gm.runtime.publish.facts import Facts, extension
from c2gm.runtime.pyramid import level_resolution_m

_METRES_PER_PIXEL = 0.0254 / 96
"""Of QGIS's canvas, whose scales count 96 pixels an inch."""

_WEB_MERCATOR = {
    "proj4": "+proj=merc +a=6378137 +b=6378137 +lat_ts=0 +lon_0=0 +x_0=0 +y_0=0 +k=1 +units=m "
    "+nadgrids=@null +wktext +no_defs",
    "srsid": "3857",
    "srid": "3857",
    "authid": "EPSG:3857",
    "description": "WGS 84 / Pseudo-Mercator",
}
"""QgsCoordinateReferenceSystem::readXml believes an authid only beside a srsid. No WKT: GDAL writes
it in ways that depend on what the process did before."""


@dataclass(frozen=True, slots=True)
class Layer:
    """`source`: as the provider understands it, relative; scales are denominators or None."""

    identifier: str
    name: str
    provider: str
    source: str
    min_scale: float | None = None
    max_scale: float | None = None


def write_qlr(path: Path, layers: Sequence[Layer], facts: Facts) -> None:
    """Write a layer definition; the first layer is switched on. Raises OSError."""
    root = ElementTree.Element("qlr")
    tree = ElementTree.SubElement(
        root, "layer-tree-group", name="", checked="Qt::Checked", expanded="1"
    )
    group = ElementTree.SubElement(
        tree,
        "layer-tree-group",
        name=f"{facts.rows.get('name', '')} (AI-generated)",
        checked="Qt::Checked",
        expanded="1",
    )
    found = ElementTree.SubElement(root, "maplayers")
    first = layers[0].identifier.partition("-")[0]
    for layer in layers:
        shown = layer.identifier.partition("-")[0] == first
        ElementTree.SubElement(
            group,
            "layer-tree-layer",
            id=layer.identifier,
            name=layer.name,
            source=layer.source,
            providerKey=layer.provider,
            checked="Qt::Checked" if shown else "Qt::Unchecked",
            expanded="0",
        )
        found.append(_map_layer(layer, facts))
    ElementTree.indent(root, " ")
    text = ElementTree.tostring(root, encoding="unicode")
    path.write_text(f"<!DOCTYPE qgis-layer-definition>\n{text}\n", encoding="utf-8")


def layers_of(
    facts: Facts, outputs: Sequence[str], xyz: str, cog_levels: Sequence[tuple[int, str]]
) -> list[Layer]:
    """The layers of what was published, of `outputs` (names); PMTiles has none.

    `xyz`: name of the folder; `cog_levels`: levels and names of GeoTIFFs, each shown around the
    scale of its level.
    """
    name = facts.rows.get("name", "")
    layers = [
        Layer("mbtiles", f"{name}, all levels", "gdal", f"./{output}")
        for output in outputs
        if output.endswith(".mbtiles")
    ]
    if xyz in outputs:
        layers.append(Layer("xyz", f"{name}, folder of tiles", "wms", _xyz_source(facts, xyz)))
    levels = sorted({level for level, _ in cog_levels}, reverse=True)
    for level, output in sorted(cog_levels, reverse=True):
        place = levels.index(level)
        finer = levels[place - 1] if place else None
        coarser = levels[place + 1] if place + 1 < len(levels) else None
        layers.append(
            Layer(
                f"cog-{Path(output).stem}",
                f"{Path(output).stem}",
                "gdal",
                f"./{output}",
                None if coarser is None else _between(level, coarser),
                None if finer is None else _between(level, finer),
            )
        )
    return layers


def _xyz_source(facts: Facts, folder: str) -> str:
    row = "{-y}" if facts.options.tms else "{y}"
    url = f"file:./{quote(folder)}/{{z}}/{{x}}/{row}.{extension(facts.options)}"
    fields = {
        "type": "xyz",
        "url": quote(url, safe=":/."),
        "zmin": facts.levels[0],
        "zmax": facts.levels[-1],
        # QGIS counts a tile of 512 px as one of 256 px for screens of twice the density.
        **({"tilePixelRatio": 2} if facts.options.tile_size == 512 else {}),
    }
    return "&".join(f"{key}={value}" for key, value in fields.items())


def _between(level: int, other: int) -> float:
    """Scale half-way between two levels."""
    resolution = math.sqrt(level_resolution_m(level) * level_resolution_m(other))
    return resolution / _METRES_PER_PIXEL


def _map_layer(layer: Layer, facts: Facts) -> ElementTree.Element:
    scales = {
        "hasScaleBasedVisibilityFlag": str(int((layer.min_scale or layer.max_scale) is not None)),
        "minScale": f"{layer.min_scale or 1e8:.0f}",
        "maxScale": f"{layer.max_scale or 0:.0f}",
    }
    element = ElementTree.Element("maplayer", {"type": "raster", **scales})
    for tag, text in (
        ("id", layer.identifier),
        ("datasource", layer.source),
        ("layername", layer.name),
        ("provider", layer.provider),
    ):
        ElementTree.SubElement(element, tag).text = text
    system = ElementTree.SubElement(ElementTree.SubElement(element, "srs"), "spatialrefsys")
    for tag, text in _WEB_MERCATOR.items():
        ElementTree.SubElement(system, tag).text = text
    about = ElementTree.SubElement(element, "resourceMetadata")
    ElementTree.SubElement(about, "title").text = layer.name
    ElementTree.SubElement(about, "abstract").text = facts.rows.get("description", "")
    ElementTree.SubElement(about, "rights").text = facts.attribution
    return element
