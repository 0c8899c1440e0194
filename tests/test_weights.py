"""Loading Stable Diffusion 2.1's formats, on tiny files of the same layout."""

import copy
import json
import re
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import c2gm.model._torchvision  # noqa: F401
from c2gm.model.config import FULL, NANO, AutoencoderConfig, ConditionConfig, TextConfig, UNetConfig
from c2gm.model.scale_encoder import ScaleEncoder, tokenize
from c2gm.model.sgdm import SGDM
from c2gm.model.weights import TEXT, load_sd21
from c2gm.runtime.errors import WeightsError

# isort: split
from diffusers import AutoencoderKL, UNet2DConditionModel

TINY = replace(
    FULL,
    name="tiny-full",
    text=TextConfig(width=16, heads=2, layers=2),
    autoencoder=AutoencoderConfig("kl", 4, 0.18215, (8, 8, 16, 16), (8, 8, 16, 16), 2, 2),
    condition=ConditionConfig(4, (4, 4, 4), (4, 4, 4), 8, 4, 4),
    unet=UNetConfig((8, 8, 16, 16), (True, True, True, False), 2, head_width=8, norm_groups=4),
)

State = dict[str, Tensor]


@dataclass(frozen=True)
class StableDiffusion:
    """A tiny Stable Diffusion of diffusers' own modules; `text` has one block more than is read."""

    unet: UNet2DConditionModel
    vae: AutoencoderKL
    text: ScaleEncoder


@pytest.fixture(scope="module")
def source() -> StableDiffusion:
    torch.manual_seed(7)
    unet = UNet2DConditionModel(
        block_out_channels=TINY.unet.channels,
        attention_head_dim=(1, 1, 2, 2),
        norm_num_groups=4,
        cross_attention_dim=16,
        use_linear_projection=True,
    )
    vae = AutoencoderKL(
        block_out_channels=(8, 8, 16, 16),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        norm_num_groups=8,
    )
    text = ScaleEncoder(replace(TINY.text, layers=3))
    for part in (unet, vae, text):
        for parameter in part.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
    return StableDiffusion(unet.eval(), vae.eval(), text.eval())


@pytest.fixture
def model() -> SGDM:
    torch.manual_seed(0)
    return SGDM(TINY).eval()


@torch.no_grad()
def assert_behaves_as(model: SGDM, source: StableDiffusion) -> None:
    """Same numbers as diffusers' modules, whatever the picture and its reference."""
    pictures = torch.rand(2, 1, 3, 64, 64) * 2 - 1
    tokens = tokenize(["map level 14"])
    text = copy.deepcopy(source.text)
    text.transformer.transformer.resblocks = text.transformer.transformer.resblocks[:2]
    states, pooled = model.text_encoder(tokens)
    torch.testing.assert_close(states, text(tokens)[0])
    latents, timestep = torch.randn(1, 4, 8, 8), torch.tensor([321])
    condition = model.condition(pictures[0], pictures[1], torch.ones(1))
    torch.testing.assert_close(
        model.denoise(latents, timestep, states, pooled, condition),
        source.unet(latents, timestep, states).sample,
        rtol=1e-4,
        atol=1e-5,
    )
    torch.testing.assert_close(
        model.autoencoder.decode(latents), source.vae.decode(latents / 0.18215).sample
    )


def write_folder(source: StableDiffusion, folder: Path) -> None:
    """A diffusers folder: text tower with transformers' names, VAE attention with those of 2022."""
    source.unet.save_pretrained(folder / "unet")
    (folder / "vae").mkdir()
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    vae = {
        re.sub(
            r"(?<=attentions\.0\.)(to_q|to_k|to_v|to_out\.0)", lambda m: old[m[1]], name
        ): tensor.contiguous()
        for name, tensor in source.vae.state_dict().items()
    }
    torch.save(vae, folder / "vae" / "diffusion_pytorch_model.bin")
    (folder / "text_encoder").mkdir()
    save_file(transformers_text(source.text), folder / "text_encoder" / "model.safetensors")
    (folder / "scheduler").mkdir()
    (folder / "scheduler" / "scheduler_config.json").write_text(
        json.dumps({"prediction_type": "epsilon"})
    )


def transformers_text(text: ScaleEncoder) -> State:
    """State of transformers' CLIPTextModel with the same weights."""
    tower = text.transformer
    state = {
        "embeddings.token_embedding.weight": tower.token_embedding.weight,
        "embeddings.position_embedding.weight": tower.positional_embedding,
        "final_layer_norm.weight": tower.ln_final.weight,
        "final_layer_norm.bias": tower.ln_final.bias,
    }
    for index, block in enumerate(tower.transformer.resblocks):
        layer = f"encoder.layers.{index}"
        modules = {
            "layer_norm1": block.ln_1,
            "layer_norm2": block.ln_2,
            "mlp.fc1": block.mlp.c_fc,
            "mlp.fc2": block.mlp.c_proj,
            "self_attn.out_proj": block.attn.out_proj,
        }
        for name, module in modules.items():
            state[f"{layer}.{name}.weight"] = module.weight
            state[f"{layer}.{name}.bias"] = module.bias
        weights, biases = block.attn.in_proj_weight.chunk(3), block.attn.in_proj_bias.chunk(3)
        for name, weight, bias in zip("qkv", weights, biases, strict=True):
            state[f"{layer}.self_attn.{name}_proj.weight"] = weight
            state[f"{layer}.self_attn.{name}_proj.bias"] = bias
    return {f"text_model.{name}": tensor.detach().clone() for name, tensor in state.items()}


def original_layout(source: StableDiffusion) -> State:
    """State in the layout of the original code (the names' translation as published with it)."""
    state = {
        "model.diffusion_model." + original_unet_name(name): tensor
        for name, tensor in source.unet.state_dict().items()
    }
    for name, tensor in source.vae.state_dict().items():
        if ".attentions." in name and name.endswith("weight") and "group_norm" not in name:
            tensor = tensor[:, :, None, None]
        state["first_stage_model." + original_vae_name(name)] = tensor
    for name, tensor in source.text.transformer.state_dict().items():
        state["cond_stage_model.model." + name] = tensor
    state["cond_stage_model.model.text_projection"] = torch.zeros(16, 16)
    state["betas"] = torch.zeros(1000)
    return {name: tensor.detach().clone() for name, tensor in state.items()}


def original_unet_name(name: str) -> str:
    outside = {
        "time_embedding.linear_1": "time_embed.0",
        "time_embedding.linear_2": "time_embed.2",
        "conv_in": "input_blocks.0.0",
        "conv_norm_out": "out.0",
        "conv_out": "out.2",
    }
    residual = {
        "norm1": "in_layers.0",
        "conv1": "in_layers.2",
        "norm2": "out_layers.0",
        "conv2": "out_layers.3",
        "time_emb_proj": "emb_layers.1",
        "conv_shortcut": "skip_connection",
    }
    module, kind = name.rsplit(".", 1)
    if module in outside:
        return f"{outside[module]}.{kind}"
    if match := re.fullmatch(r"mid_block\.(resnets|attentions)\.(\d)\.(.+)", name):
        part, index, rest = match.groups()
        place = "middle_block.1" if part == "attentions" else f"middle_block.{2 * int(index)}"
    else:
        match = re.fullmatch(r"(down|up)_blocks\.(\d)\.(\w+)\.(\d)\.(.+)", name)
        assert match
        side, block, part, index, rest = match.groups()
        first = 3 * int(block)
        if part == "downsamplers":
            return f"input_blocks.{first + 3}.0.op.{kind}"
        if part == "upsamplers":
            return f"output_blocks.{first + 2}.{1 if block == '0' else 2}.conv.{kind}"
        number = first + int(index) + (side == "down")
        kind_of_block = "input" if side == "down" else "output"
        place = f"{kind_of_block}_blocks.{number}.{int(part == 'attentions')}"
    if part == "resnets":
        module, kind = rest.rsplit(".", 1)
        rest = f"{residual[module]}.{kind}"
    return f"{place}.{rest}"


def original_vae_name(name: str) -> str:
    attention = {
        "group_norm": "norm",
        "to_q": "q",
        "to_k": "k",
        "to_v": "v",
        "to_out.0": "proj_out",
    }
    name = name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
    name = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", name)
    name = re.sub(r"up_blocks\.(\d)", lambda m: f"up.{3 - int(m[1])}", name)
    name = name.replace("down_blocks", "down").replace("resnets", "block")
    name = name.replace("downsamplers.0", "downsample").replace("upsamplers.0", "upsample")
    if match := re.fullmatch(r"(.+)\.mid_block\.attentions\.0\.(.+)\.(\w+)", name):
        return f"{match[1]}.mid.attn_1.{attention[match[2]]}.{match[3]}"
    return name


def test_diffusers_folder(source: StableDiffusion, model: SGDM, tmp_path: Path) -> None:
    """Loaded, the model computes what Stable Diffusion computes; the report accounts for all."""
    write_folder(source, tmp_path)
    report = load_sd21(model, tmp_path)
    names = {name.split("[")[0] for name in (*report.loaded, *report.initialised)}
    assert names == set(model.state_dict())
    assert report.loaded_parameters + report.initialised_parameters == sum(
        tensor.numel() for tensor in model.state_dict().values()
    )
    assert "unet.net.conv_in.weight[:, 4:]" in report.initialised
    assert len(report.left_over) == 12  # the third block
    assert all(name.startswith(f"{TEXT}transformer.resblocks.2.") for name in report.left_over)
    assert str(len(report.loaded)) in report.summary()
    assert_behaves_as(model, source)


@pytest.mark.parametrize("suffix", ["safetensors", "ckpt"])
def test_single_file(source: StableDiffusion, model: SGDM, tmp_path: Path, suffix: str) -> None:
    """The original layout, as safetensors or pickled, gives the same model."""
    state, path = original_layout(source), tmp_path / f"v2-1.{suffix}"
    if suffix == "ckpt":
        torch.save({"state_dict": state, "global_step": 1}, path)
    else:
        save_file(state, path)
    report = load_sd21(model, path)
    assert {"betas", f"{TEXT}text_projection"} < set(report.left_over)
    assert_behaves_as(model, source)


@pytest.mark.parametrize("fault", ["missing", "unknown", "shape"])
def test_what_does_not_fit_is_an_error(
    source: StableDiffusion, model: SGDM, tmp_path: Path, fault: str
) -> None:
    """One tensor too few, too many or too wide: an error that names it, and an untouched model."""
    state, path = original_layout(source), tmp_path / "v2-1.safetensors"
    name = "model.diffusion_model.out.2.bias"
    if fault == "unknown":
        name = "model.diffusion_model.label_emb.0.0.weight"
        state[name] = torch.zeros(1)
    elif fault == "shape":
        state[name] = torch.zeros(5)
    else:
        del state[name]
    save_file(state, path)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    with pytest.raises(WeightsError, match="label_emb" if fault == "unknown" else "conv_out.bias"):
        load_sd21(model, path)
    assert all(torch.equal(before[key], tensor) for key, tensor in model.state_dict().items())


def test_missing_broken_and_foreign_files(
    source: StableDiffusion, model: SGDM, tmp_path: Path
) -> None:
    """Each is told apart, and a missing file says what to fetch and where to put it."""
    for path in (tmp_path / "sd21.safetensors", tmp_path):
        with pytest.raises(WeightsError, match="stable-diffusion-2-1-base") as caught:
            load_sd21(model, path)
        assert str(path) in str(caught.value)
    for suffix in ("safetensors", "ckpt"):
        broken = tmp_path / f"broken.{suffix}"
        broken.write_bytes(b"<html>not found</html>")
        with pytest.raises(WeightsError, match="cannot be read"):
            load_sd21(model, broken)
    write_folder(source, tmp_path)
    scheduler = tmp_path / "scheduler" / "scheduler_config.json"
    scheduler.write_text(json.dumps({"prediction_type": "v_prediction"}))
    with pytest.raises(WeightsError, match="v_prediction"):
        load_sd21(model, tmp_path)
    with pytest.raises(WeightsError, match="preset 'full'"):
        load_sd21(SGDM(NANO), tmp_path)
