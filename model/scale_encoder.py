"""The scale encoder f_theta (eq. 9): a CLIP text tower on the scale prompt."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

import c2gm.model._torchvision  # noqa: F401  (open_clip imports torchvision)
from c2gm.model.config import TextConfig

# isort: split
from open_clip.tokenizer import SimpleTokenizer
from open_clip.transformer import QuickGELU, TextTransformer

_ACTIVATIONS: dict[str, type[nn.Module]] = {"gelu": nn.GELU, "quick_gelu": QuickGELU}


@cache
def _tokenizer(context_length: int) -> Any:
    # The vocabulary is part of the open_clip package: nothing is downloaded.
    return SimpleTokenizer(context_length=context_length)


def tokenize(prompts: Sequence[str], context_length: int = 77) -> Tensor:
    """Token ids of prompts, int64 (b, context_length): start, text, end, then zeros (as SD 2.1).

    Too long a prompt is cut so that it still ends in the end token.
    """
    token_ids: Tensor = _tokenizer(context_length)(list(prompts))
    return token_ids


class ScaleEncoder(nn.Module):
    """Token ids -> token states and a pooled embedding (eqs. 9 and 11).

    The states are those of the last computed block after the final layer norm; for `full`, with 23
    of ViT-H-14's 24 blocks, that is what Stable Diffusion 2.1 reads. The pooled embedding is the
    state at the end token. CLIP's text projection is not used and therefore not there.
    """

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.config = config
        self.transformer = TextTransformer(
            context_length=config.context_length,
            vocab_size=config.vocab_size,
            width=config.width,
            heads=config.heads,
            layers=config.layers,
            act_layer=_ACTIVATIONS[config.activation],
            proj_type="none",
            pool_type="none",
        )

    def forward(self, token_ids: Tensor) -> tuple[Tensor, Tensor]:
        """`token_ids` int64 (b, n) -> states (b, n, width), pooled (b, width)."""
        tower = self.transformer
        states = tower.token_embedding(token_ids) + tower.positional_embedding
        for block in tower.transformer.resblocks:
            states = block(states, attn_mask=tower.attn_mask)
        states = tower.ln_final(states)
        # The end token has the highest id of the vocabulary.
        end = token_ids.argmax(dim=-1)
        pooled = states.gather(1, end[:, None, None].expand(-1, 1, states.shape[-1]))[:, 0]
        return states, pooled

    @torch.no_grad()
    def encode_prompts(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Prompts -> states (b, n, width), pooled (b, width), without gradients."""
        token_ids = tokenize(prompts, self.config.context_length)
        states, pooled = self(token_ids.to(self.transformer.positional_embedding.device))
        return states, pooled
