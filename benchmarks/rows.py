"""Rows of the benchmarks' tables, from c2gm-eval's reports, and tables in Markdown."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

SHOWN = ("psnr_y", "ssim_y", "lpips", "fd_alexnet", "iou_built_up", "iou_building", "iou_road")
"""What a row says."""


def mean_over_levels(tables: Mapping[str, Any], levels: Iterable[int]) -> dict[str, float]:
    """Mean of a model's scores over levels, each counting the same.

    `tables`: a subset of a condition in a report. A score that a level lacks is left out.
    """
    rows = [tables["levels"][str(level)]["model"] for level in levels]
    return {
        name: sum(row[name] for row in rows) / len(rows)
        for name in SHOWN
        if all(row.get(name) is not None for row in rows)
    }


def row_text(title: str, values: Mapping[str, float | None]) -> str:
    """One line for people."""
    cells = [f"{name} {values[name]:.4f}" for name in SHOWN if values.get(name) is not None]
    return f"{title}  " + "  ".join(cells)


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a table in Markdown."""
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]
