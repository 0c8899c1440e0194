"""Our own weights on disk: safetensors with the configuration in the metadata, strict."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from c2gm.model.autoencoder import KLAutoencoder, LightAutoencoder
from c2gm.model.config import PRESETS, ModelConfig
from c2gm.model.sgdm import SGDM
from c2gm.runtime.errors import WeightsError

MODEL, AUTOENCODER, PROBE = "c2gm", "c2gm-autoencoder", "c2gm-probe"


def save_model(model: SGDM, path: Path, half: bool = False) -> None:
    """Write all parameters and buffers of a model; `half` stores floats rounded to FP16."""
    state = model.state_dict()
    if half:
        state = {name: _to_half(name, tensor) for name, tensor in state.items()}
    _save(state, MODEL, model.config.name, asdict(model.config), path)


def save_autoencoder(
    autoencoder: KLAutoencoder | LightAutoencoder, config: ModelConfig, path: Path
) -> None:
    """Write an autoencoder alone, for training an SGDM over it."""
    state = autoencoder.state_dict()
    _save(state, AUTOENCODER, config.name, asdict(config.autoencoder), path)


def load_model(path: Path, config: ModelConfig | None = None) -> SGDM:
    """Read a model, in evaluation mode, of the preset that the file names.

    Raises WeightsError if the file is missing, foreign, of another configuration than `config` or
    than its preset now has, or if any tensor is missing, left over or of another shape.
    """
    metadata, state = _read(path, MODEL)
    preset = metadata["preset"]
    if config is None:
        if preset not in PRESETS:
            raise WeightsError(
                f"{path} is of preset {preset!r}, this c2gm has {', '.join(PRESETS)}; "
                "use the version that wrote it"
            )
        config = PRESETS[preset]
    _same_configuration(path, metadata["config"], asdict(config))
    model = SGDM(config)
    _load(model, state, path)
    return model.eval()


def load_autoencoder(autoencoder: KLAutoencoder | LightAutoencoder, path: Path) -> None:
    """Fill an autoencoder from a file of `save_autoencoder`; raises WeightsError alike."""
    _, state = _read(path, AUTOENCODER)
    _load(autoencoder, state, path)


def probe_path(weights: Path) -> Path:
    """Where the class probe of a training run's weights lies: beside them."""
    return weights.with_suffix(".probe.safetensors")


def save_probe(probe: nn.Module, config: ModelConfig, path: Path) -> None:
    """Write what training adds to a model (class_probe.py), to go on with it in another run."""
    _save(probe.state_dict(), PROBE, config.name, asdict(config.condition), path)


def load_probe(probe: nn.Module, path: Path) -> None:
    """Fill a class probe from a file of `save_probe`; raises WeightsError as `load_model` does."""
    _, state = _read(path, PROBE)
    _load(probe, state, path)


def _to_half(name: str, tensor: Tensor) -> Tensor:
    if not tensor.is_floating_point():
        return tensor
    half = tensor.half()
    if not bool(torch.isfinite(half).all()):
        raise WeightsError(f"{name} has values that FP16 cannot hold; save it without rounding")
    return half


def _save(
    state: Mapping[str, Tensor], kind: str, preset: str, config: Mapping[str, object], path: Path
) -> None:
    part = path.with_name(path.name + ".part")
    metadata = {"format": kind, "preset": preset, "config": json.dumps(config)}
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, part, metadata)
    part.replace(path)


def _read(path: Path, kind: str) -> tuple[dict[str, str], dict[str, Tensor]]:
    if not path.is_file():
        raise WeightsError(f"{path} does not exist; give a .safetensors file of c2gm-train")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = dict(file.metadata() or {})
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} is not a safetensors file ({error}); copy it again") from None
    if metadata.get("format") != kind:
        raise WeightsError(
            f"{path} is of format {metadata.get('format')!r}, expected {kind!r} as c2gm-train "
            "writes it"
        )
    return metadata, state


def _same_configuration(path: Path, written: str, expected: Mapping[str, object]) -> None:
    found, wanted = json.loads(written), json.loads(json.dumps(expected))
    for config in (found, wanted):  # how one samples is not what one has trained
        config.get("schedule", {}).pop("sampling_end", None)
    if found != wanted:
        differing = [key for key in wanted if found.get(key) != wanted[key]]
        raise WeightsError(
            f"{path} was trained with other numbers for {', '.join(differing)} than the preset has "
            "now; train again, or use the version that wrote it"
        )


def _load(module: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    own = module.state_dict()
    wrong = [n for n in own if n in state and own[n].shape != state[n].shape]
    missing, left_over = sorted(set(own) - set(state)), sorted(set(state) - set(own))
    if wrong or missing or left_over:
        raise WeightsError(
            f"{path} does not fit: {len(missing)} tensors missing {missing[:3]}, {len(left_over)} "
            f"left over {left_over[:3]}, {len(wrong)} of another shape {wrong[:3]}"
        )
    module.load_state_dict(dict(state))
