"""What a map's tiles weigh in every encoding, and what the lossy ones lose."""

import io
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from c2gm.runtime.publish.encoding import encode
from c2gm.runtime.publish.options import PublishOptions
from c2gm.runtime.publish.source import open_finished
from c2gm.runtime.tile_codec import decode_tile

ENCODINGS = {
    "png": PublishOptions(),
    "webp (lossless)": PublishOptions(tile_format="webp"),
    "png8": PublishOptions(tile_format="png8"),
    "jpg (--quality 90)": PublishOptions(tile_format="jpg"),
    "webp --quality 90": PublishOptions(tile_format="webp", quality=90),
    "webp --quality 75": PublishOptions(tile_format="webp", quality=75),
}
PALETTE = 256


@dataclass(frozen=True, slots=True)
class Weight:
    """Mean bytes of a tile, and PSNR over pixels with data in dB (None: nothing is lost)."""

    encoding: str
    bytes_per_tile: float
    psnr_mean: float | None
    psnr_worst: float | None


def weigh(path: Path) -> dict[str, Any]:
    """Encode all tiles of a finished map in all ways. Raises OutputError."""
    with open_finished(path) as source:
        tiles = [source.data(tile) for level in source.levels for tile in source.tiles(level)]
    made = [data for data in tiles if data is not None]
    colours = [_colours(data) for data in made]
    weights = [_weigh(name, options, made) for name, options in ENCODINGS.items()]
    return {
        "map": path.name,
        "tiles": len(made),
        "bytes_as_made": sum(map(len, made)) / len(made),
        "tiles_with_a_palette": sum(count <= PALETTE for count in colours),
        "colours_median": float(np.median(colours)),
        "encodings": [asdict(weight) for weight in weights],
    }


def _weigh(name: str, options: PublishOptions, made: list[bytes]) -> Weight:
    size, errors = 0, []
    for data in made:
        out = encode(options, (data,))
        size += len(out)
        found = np.asarray(Image.open(io.BytesIO(out)).convert("RGBA"))
        errors.append(_psnr(decode_tile(data), found[..., :3]))
    lossy = [error for error in errors if error is not None]
    if options.lossless and lossy:
        raise RuntimeError(f"{name} changed {len(lossy)} tiles and must not")
    return Weight(
        name,
        size / len(made),
        float(np.mean(lossy)) if lossy else None,
        float(min(lossy)) if lossy else None,
    )


def _psnr(made: np.ndarray[Any, Any], found: np.ndarray[Any, Any]) -> float | None:
    """In dB over RGB, of pixels with data; None where they are equal."""
    valid = made[..., 3] > 0 if made.shape[2] == 4 else np.ones(made.shape[:2], bool)
    error = np.square(made[valid][:, :3].astype(float) - found[valid]).mean()
    return float(10 * np.log10(255**2 / error)) if error else None


def _colours(data: bytes) -> int:
    image = Image.fromarray(decode_tile(data))
    return len(image.getcolors(image.width * image.height) or ())
