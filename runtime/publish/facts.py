"""What a published map says about itself, in the words of every format."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from c2gm.runtime.publish.options import PublishOptions
from c2gm.runtime.publish.source import FinishedMap
from c2gm.runtime.verify import PUBLISHED, SEAL

NOTE = "AI-generated map, not surveyed"
"""Stands in the attribution too: viewers show that, and often nothing else."""


@dataclass(frozen=True, slots=True)
class Facts:
    """Provenance and extent of a published map.

    `levels`: those published; `rows`: the metadata of the map as it was made; `origin`: its JSON
    about model, version, seed and so on; `bounds`: west, south, east, north in degrees.
    """

    levels: tuple[int, ...]
    options: PublishOptions
    rows: Mapping[str, str]
    origin: Mapping[str, Any]
    bounds: tuple[float, float, float, float]
    center: tuple[float, float, int]
    seal: str

    @property
    def attribution(self) -> str:
        """Who is to be named, and that a model drew the map."""
        return f"{NOTE}. {self.rows.get('attribution', '')}".strip()

    @property
    def provenance(self) -> dict[str, Any]:
        """What made the map, for programs."""
        origin = {name: self.origin.get(name) for name in ("model", "version", "seed", "imagery")}
        return {"ai_generated": True, "date": self.rows.get("date", ""), **origin}

    @property
    def publication(self) -> dict[str, Any]:
        """How the map was published."""
        return {
            "tiles": self.options.tile_format,
            "size": self.options.tile_size,
            "quality": self.options.encoder_quality,
            "lossless": self.options.lossless,
        }

    def mbtiles(self) -> dict[str, str]:
        """Rows of the metadata table (MBTiles 1.3)."""
        west, south, east, north = self.bounds
        kept = {k: v for k, v in self.rows.items() if k not in (SEAL, PUBLISHED)}
        return {
            **kept,
            "attribution": self.attribution,
            "format": extension(self.options),
            "bounds": f"{west:.8f},{south:.8f},{east:.8f},{north:.8f}",
            "center": f"{self.center[0]:.8f},{self.center[1]:.8f},{self.center[2]}",
            "minzoom": str(self.levels[0]),
            "maxzoom": str(self.levels[-1]),
            "tileSize": str(self.options.tile_size),
            PUBLISHED: json.dumps(self.publication, sort_keys=True),
        }

    def json(self) -> dict[str, Any]:
        """What TileJSON and the metadata of PMTiles share."""
        return {
            "name": self.rows.get("name", ""),
            "description": self.rows.get("description", ""),
            "attribution": self.attribution,
            "version": "1.0.0",
            "type": self.rows.get("type", "baselayer"),
            "format": extension(self.options),
            "tileSize": self.options.tile_size,
            "c2gm": {**self.origin, **self.provenance},
            PUBLISHED: self.publication,
        }

    def tilejson(self, tiles: Sequence[str], scheme: str) -> dict[str, Any]:
        """TileJSON 3.0.0; `tiles`: URL templates, `scheme`: xyz or tms.

        `vector_layers` is empty: the specification's text excepts rasters, its schema does not.
        """
        return {
            "tilejson": "3.0.0",
            "tiles": list(tiles),
            "scheme": scheme,
            "vector_layers": [],
            "minzoom": self.levels[0],
            "maxzoom": self.levels[-1],
            "bounds": list(self.bounds),
            "center": list(self.center),
            **self.json(),
        }

    def tags(self, level: int) -> dict[str, str]:
        """Tags of a GeoTIFF; those named TIFFTAG_* become baseline TIFF tags."""
        kept = {f"C2GM_{k.upper()}": str(v) for k, v in self.provenance.items() if v is not None}
        return {
            "TIFFTAG_DOCUMENTNAME": f"{self.rows.get('name', '')}, level {level}",
            "TIFFTAG_IMAGEDESCRIPTION": self.rows.get("description", ""),
            "TIFFTAG_SOFTWARE": f"c2gm {self.origin.get('version', '')}",
            "TIFFTAG_COPYRIGHT": self.attribution,
            "C2GM_LEVEL": str(level),
            **kept,
        }


def facts_of(source: FinishedMap, levels: tuple[int, ...], options: PublishOptions) -> Facts:
    """The facts of a map that is published with `levels`."""
    west, south, east, north = (float(v) for v in source.metadata["bounds"].split(","))
    x, y, _ = source.metadata["center"].split(",")
    return Facts(
        levels=levels,
        options=options,
        rows=source.metadata,
        origin=json.loads(source.metadata["c2gm"]),
        bounds=(west, south, east, north),
        center=(float(x), float(y), levels[0]),
        seal=source.seal,
    )


def extension(options: PublishOptions) -> str:
    """Ending of a tile's file, and its name in MBTiles: png, webp or jpg."""
    return "png" if options.tile_format == "png8" else options.tile_format
