"""Makes torchvision importable beside a CPU build of torch; import this before open_clip.

PyPI's torchvision is built against CUDA: beside a CPU build of torch its compiled operators cannot
be loaded, and its import then fails on registering fake kernels for operators that do not exist.
open_clip imports torchvision for image transforms that C2GM never uses. Declaring the two
operators' schemas is all that the import needs; calling one of them still raises.
"""

import torch

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_library: torch.library.Library | None = None


def ensure_torchvision() -> None:
    """Import torchvision, declaring its missing operators where they cannot be loaded.

    Raises whatever its import raises for another reason.
    """
    global _library
    try:
        import torchvision  # noqa: F401
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
        # The declaration lives as long as the library object does.
        _library = torch.library.Library("torchvision", "DEF")
        for schema in _SCHEMAS:
            _library.define(schema)
        import torchvision  # noqa: F401


ensure_torchvision()
