"""`manifest.json` of a dataset folder: what it holds, per level and class, and whose it is."""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

from c2gm.model.data.mosaic import CELL, Area, open_areas
from c2gm.model.data.mosaic_build import class_shares
from c2gm.model.data.sampler import held_out_share
from c2gm.runtime.levels import TILE_SIZE

_TILES_PER_CELL = (CELL / TILE_SIZE) ** 2


def write_manifest(dataset: Path) -> int:
    """Describe all areas of a folder in its `manifest.json`; returns how many they are.

    `levels`: tiles' worth of valid pixels that training and validation draw from, by level and kind
    of imagery, and the share of each class among them. `areas`: the same for every area, with
    credit, licence and the levels that are learnt from it ("targets"; others are references only).
    """
    areas = open_areas(dataset)
    facts = {area.name: _facts(area) for area in areas}
    levels = {
        level: _sum([facts[a.name] | {"kind": a.kind} for a in areas if level in a.targets], level)
        for level in sorted({level for area in areas for level in area.targets})
    }
    content = {"format": "c2gm-dataset 1", "levels": levels, "areas": facts}
    (dataset / "manifest.json").write_text(json.dumps(content, indent=1) + "\n")
    return len(areas)


def _facts(area: Area) -> dict[str, Any]:
    levels = {}
    for level, extent in area.levels.items():
        valid = area.cells(level).valid
        held_out = held_out_share(area, level, valid.shape)
        levels[level] = {
            "training_tiles": round(float((valid * (1 - held_out)).sum()) * _TILES_PER_CELL, 2),
            "validation_tiles": round(float((valid * held_out).sum()) * _TILES_PER_CELL, 2),
            "pixels": [extent.width, extent.height],
            "class_shares": class_shares(area, level),
        }
    return {
        "kind": area.kind,
        "credit": area.credit,
        "licence": area.licence,
        "targets": list(area.targets),
        "levels": levels,
    }


def _sum(areas: list[dict[str, Any]], level: int) -> dict[str, Any]:
    tiles: dict[str, dict[str, float]] = defaultdict(lambda: {"training": 0.0, "validation": 0.0})
    classes: dict[str, float] = defaultdict(float)
    for area in areas:
        facts = area["levels"][level]
        both = facts["training_tiles"], facts["validation_tiles"]
        for split, count in zip(("training", "validation"), both, strict=True):
            tiles[area["kind"]][split] += count
        for name, share in facts["class_shares"].items():
            classes[name] += share * sum(both)
    total = sum(sum(splits.values()) for splits in tiles.values())
    return {
        "tiles": {
            kind: {k: round(v, 2) for k, v in splits.items()} for kind, splits in tiles.items()
        },
        "class_shares": {
            name: round(count / max(total, 1e-9), 4)
            for name, count in sorted(classes.items(), key=lambda item: -item[1])
        },
    }
