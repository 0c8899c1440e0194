"""Picture sheets: rows of tiles side by side, with names over the columns and beside the rows."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from c2gm.model.evaluation.evaluate import Evaluation, enlarged_reference
from c2gm.model.evaluation.metrics import Pictures

_GAP, _HEADER, _LABEL = 6, 26, 92
_PAPER, _INK = (255, 255, 255), (40, 40, 40)


def labelled_sheet(columns: Mapping[str, Pictures], labels: Sequence[str]) -> Image.Image:
    """Columns of pictures (n, h, w, 3) by name, n rows with a label (of lines) each."""
    first = next(iter(columns.values()))
    height, width = first.shape[1] + _GAP, first.shape[2] + _GAP
    size = _LABEL + width * len(columns), _HEADER + height * len(labels)
    sheet = Image.new("RGB", size, _PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(15)
    for x, (name, pictures) in enumerate(columns.items()):
        left = _LABEL + x * width
        draw.text((left, 4), name, fill=_INK, font=font)
        for y, picture in enumerate(pictures):
            sheet.paste(Image.fromarray(picture), (left, _HEADER + y * height))
    for y, label in enumerate(labels):
        draw.multiline_text((4, _HEADER + y * height + 4), label, fill=_INK, font=font)
    return sheet


def evaluation_sheet(evaluation: Evaluation, rows_per_level: int) -> Image.Image:
    """Imagery, enlarged reference, generated maps, true map; tiles with detail before others."""
    samples = evaluation.samples
    detailed = set(evaluation.sets["detailed"].tolist())
    order = sorted(range(len(samples)), key=lambda i: (samples[i].level, i not in detailed, i))
    rows: list[int] = []
    for i in order:
        same_level = sum(samples[row].level == samples[i].level for row in rows)
        if same_level < rows_per_level:
            rows.append(i)
    chosen = [samples[i] for i in rows]
    columns: dict[str, NDArray[np.uint8]] = {
        "imagery": np.stack([sample.imagery[..., :3] for sample in chosen]),
        "enlarged reference": np.stack([enlarged_reference(sample) for sample in chosen]),
    }
    for condition, pictures in evaluation.pictures.items():
        columns[f"generated, {condition.replace('_', ' ')}"] = pictures[rows]
    columns["true map"] = np.stack([sample.target for sample in chosen])
    labels = [
        f"level {sample.level}\n"
        + ("no reference" if sample.span is None else f"{1 << sample.span}X")
        + f"\n{sample.window.area.kind}"
        for sample in chosen
    ]
    return labelled_sheet(columns, labels)
