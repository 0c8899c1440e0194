"""Pictures as the network sees them: shared by training, export and runtime."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Picture = NDArray[np.uint8]
"""RGB (height, width, 3) or RGBA (height, width, 4), 0..255; alpha is validity, 0 or 255."""


def enlarge(picture: Picture, span: int) -> Picture:
    """Enlarge a reference by 2**span: colours bicubic, alpha nearest (method, section 1).

    Takes and returns an RGB or RGBA picture; colours of invalid pixels do not bleed into valid
    ones. Enlarging a part equals the part of the enlarged whole except within two source pixels
    of the cut, where bicubic filtering clamps.
    """
    factor = 1 << span
    height, width = picture.shape[0] * factor, picture.shape[1] * factor
    image = Image.fromarray(np.ascontiguousarray(picture))  # with alpha, PIL weighs colours by it
    enlarged = np.asarray(image.resize((width, height), Image.Resampling.BICUBIC))
    if picture.shape[2] == 3:
        return enlarged
    alpha = picture[..., 3:].repeat(factor, axis=0).repeat(factor, axis=1)
    return np.concatenate([enlarged[..., :3], alpha], axis=2)


def to_network(picture: Picture) -> NDArray[np.float32]:
    """RGB or RGBA picture -> float32 (3, height, width) in [-1, 1]; invalid pixels become 0."""
    values = picture[..., :3].astype(np.float32) / np.float32(127.5) - np.float32(1.0)
    if picture.shape[2] == 4:
        values *= picture[..., 3:] > 0
    return np.ascontiguousarray(values.transpose(2, 0, 1))
