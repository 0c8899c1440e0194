"""The page: files of the package, and what they are told of the map they show."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

import numpy as np

from c2gm.runtime.viewer.imagery import ImageryTiles
from c2gm.runtime.viewer.source import Keys, MapSource, TileSource

OVERZOOM = 2
"""Levels beyond the finest at which a browser enlarges it."""

_TEXT_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    "": "text/plain; charset=utf-8",
}


@dataclass(frozen=True, slots=True)
class View:
    """What is shown: a map, and the imagery that it was made of if that is at hand."""

    result: MapSource
    imagery: ImageryTiles | None = None

    @property
    def layers(self) -> Mapping[str, TileSource]:
        """Tiles by the folder they are served from."""
        layers: dict[str, TileSource] = {"map": self.result}
        if self.imagery is not None:
            layers["imagery"] = self.imagery
        return layers


@dataclass(frozen=True, slots=True)
class PageFile:
    """A file of the page."""

    data: bytes
    media_type: str


def page_files(view: View) -> dict[str, PageFile]:
    """All files of the page but tiles, by their path; `config.js` says what is to be seen."""
    folder = Path(str(files("c2gm.runtime").joinpath("assets", "viewer")))
    found = {
        path.relative_to(folder).as_posix(): PageFile(path.read_bytes(), _TEXT_TYPES[path.suffix])
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    # A script, not JSON: a page that was opened from a file may load scripts, but not data.
    script = f"window.c2gmView = {json.dumps(_config(view), indent=1)};\n"
    return {**found, "config.js": PageFile(script.encode(), _TEXT_TYPES[".js"])}


def _config(view: View) -> dict[str, object]:
    about, imagery = view.result.about, view.imagery
    return {
        "program": f"c2gm {version('c2gm')}",
        "name": about.name,
        "description": about.description,
        "attribution": about.attribution,
        "caution": about.caution,
        "brief": about.brief,
        "more": about.more,
        "bounds": view.result.bounds,
        "overzoom": OVERZOOM,
        "imageryName": None if imagery is None else imagery.name,
        "imageryCredit": "" if imagery is None else imagery.credit,
        "layers": {name: _layer(name, source) for name, source in view.layers.items()},
    }


def _layer(name: str, source: TileSource) -> dict[str, object]:
    return {
        "url": f"{name}/{{z}}/{{x}}/{{y}}.{source.suffix}",
        "levels": source.levels,
        "tiles": {str(level): tile_runs(source.keys(level)) for level in source.levels},
    }


def tile_runs(keys: Keys) -> list[int]:
    """Tiles as runs in rows: row, first column, last column; row, first column ...

    So the page asks for tiles only that are there, and can say of any place whether it has one.
    """
    breaks = np.flatnonzero(np.diff(keys) != 1) + 1
    first, last = keys[np.r_[0, breaks]], keys[np.r_[breaks, len(keys)] - 1]
    runs = np.stack([first >> 32, first & 0xFFFFFFFF, last & 0xFFFFFFFF], axis=1)
    return [int(number) for number in runs.ravel()]
