"""The denoising U-Net: diffusers' UNet2DConditionModel with adapter features (eqs. 8 and 11)."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

import c2gm.model._torchvision  # noqa: F401  (diffusers may import torchvision)
from c2gm.model.config import ModelConfig

# isort: split
from diffusers import UNet2DConditionModel


class UNet(nn.Module):
    """diffusers' modules, run by a forward pass that adds the SFAdapter's features.

    Eq. 8: latents and reference latent are concatenated along channels. Eq. 11: the pooled text,
    projected, is added to the time embedding (diffusers' "projection" class embedding), and the
    token states drive cross-attention. Each feature is added after the first residual (and
    attention) block of its encoder level, hence also to that level's skip connection, and after the
    first one of the decoder level of the same size.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        unet, latent_channels = config.unet, config.autoencoder.latent_channels
        attention = unet.attention
        self.net = UNet2DConditionModel(
            in_channels=latent_channels + config.condition.reference_latent_channels,
            out_channels=latent_channels,
            block_out_channels=unet.channels,
            down_block_types=tuple(
                "CrossAttnDownBlock2D" if a else "DownBlock2D" for a in attention
            ),
            up_block_types=tuple(
                "CrossAttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attention)
            ),
            layers_per_block=unet.layers_per_block,
            norm_num_groups=unet.norm_groups,
            # diffusers' name for the number of heads, kept for old checkpoints.
            attention_head_dim=tuple(channels // unet.head_width for channels in unet.channels),
            cross_attention_dim=config.text.width,
            use_linear_projection=True,
            class_embed_type="projection",
            projection_class_embeddings_input_dim=config.text.width,
        )

    def forward(
        self,
        latents: Tensor,
        reference_latent: Tensor,
        timestep: Tensor,
        states: Tensor,
        pooled: Tensor,
        features: Sequence[Tensor],
    ) -> Tensor:
        """Predict epsilon or v, (b, c, h, h).

        `latents` (b, c, h, h) with h a multiple of 8, `reference_latent` (b, cr, h, h), `timestep`
        int64 (b), `states` (b, n, d), `pooled` (b, d), `features` of the first levels:
        (b, c0, h, h), (b, c1, h/2, h/2), (b, c2, h/4, h/4).
        """
        net = self.net
        embedding = net.time_embedding(net.time_proj(timestep).to(latents.dtype))
        embedding = embedding + net.class_embedding(pooled)
        sample = net.conv_in(torch.cat([latents, reference_latent], dim=1))
        skips = [sample]
        for level, block in enumerate(net.down_blocks):
            for index, resnet in enumerate(block.resnets):
                sample = _attend(block, index, resnet(sample, embedding), states)
                if index == 0 and level < len(features):
                    sample = sample + features[level]
                skips.append(sample)
            if block.downsamplers is not None:
                sample = block.downsamplers[0](sample)
                skips.append(sample)
        sample = net.mid_block(sample, embedding, encoder_hidden_states=states)
        for level, block in zip(reversed(range(len(net.up_blocks))), net.up_blocks, strict=True):
            for index, resnet in enumerate(block.resnets):
                sample = resnet(torch.cat([sample, skips.pop()], dim=1), embedding)
                sample = _attend(block, index, sample, states)
                if index == 0 and level < len(features):
                    sample = sample + features[level]
            if block.upsamplers is not None:
                # Upsample2D's own forward branches on the batch size, which fixes it in an export.
                sample = functional.interpolate(sample, scale_factor=2.0, mode="nearest")
                sample = block.upsamplers[0].conv(sample)
        output: Tensor = net.conv_out(net.conv_act(net.conv_norm_out(sample)))
        return output


def _attend(block: Any, index: int, sample: Tensor, states: Tensor) -> Tensor:
    """The transformer beside a residual block, where its level has attention."""
    if not hasattr(block, "attentions"):
        return sample
    attended: Tensor = block.attentions[index](
        sample, encoder_hidden_states=states, return_dict=False
    )[0]
    return attended
