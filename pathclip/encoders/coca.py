"""CoCa: a two-tower model with a decoder that reads the image's tokens and says the caption's next word.

open_clip's ``CoCa`` is built and saved as it is. What it does with its parts is done here, because its own
``forward`` projects every position onto the vocabulary, padding too, and keeps the result: 400 MB for 64
captions of 32 tokens.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from open_clip.coca_model import CoCa
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pathclip.core.errors import UserError

__all__ = ["DECODER_KEYS", "build_coca", "caption_nats", "check_coca", "count_targets", "decoder_states"]

DECODER_KEYS = frozenset(
    (
        "context_length",
        "vocab_size",
        "width",
        "heads",
        "layers",
        "ls_init_value",
        "mlp_ratio",
        "dim_head",  # this and the rest stand in open_clip's configs and change nothing in it
        "n_queries",
        "attn_pooler_heads",
    )
)
LOGITS_AT_ONCE = 2**24  # 64 MiB of float32


def check_coca(model_cfg: dict[str, Any], place: str) -> None:
    """Refuse what would be built and then fail, or learn nothing, for reasons that are hard to see.

    Raises:
        UserError: If parts do not fit each other.
    """
    vision, text, decoder = (model_cfg[f"{part}_cfg"] for part in ("vision", "text", "multimodal"))
    if "timm_model_name" in vision or isinstance(vision.get("layers"), list | tuple):
        raise UserError(f"{place}: a decoder needs the image's tokens, which only open_clip's own ViT gives")
    if text.get("hf_model_name") or text.get("no_causal_mask") or text.get("hf_tokenizer_name"):
        raise UserError(
            f"{place}: a decoder needs open_clip's own causal text tower and tokenizer; one that reads both "
            "ways has seen the word that the decoder is to find"
        )
    for part in ("vision_cfg", "text_cfg"):
        if not model_cfg[part].get("output_tokens"):
            raise UserError(f"{place}: {part}.output_tokens must be true, the decoder works on them")
    tokens = "embed_dim" if vision.get("attentional_pool") else "vision_cfg.width"
    wanted = {
        "text_cfg.width": (text.get("width", 512), "width"),
        tokens: (vision.get("width", 768) if tokens != "embed_dim" else model_cfg["embed_dim"], "width"),
        "text_cfg.context_length": (text.get("context_length", 77), "context_length"),
        "text_cfg.vocab_size": (text.get("vocab_size", 49408), "vocab_size"),
    }
    defaults = {"width": 512, "context_length": 77, "vocab_size": 49408}
    for name, (value, key) in wanted.items():
        given = decoder.get(key, defaults[key])
        if given != value:
            raise UserError(f"{place}: multimodal_cfg.{key} is {given}; it must be {name} ({value})")
    if (ratio := decoder.get("mlp_ratio", 4)) != 4:
        raise UserError(
            f"{place}: multimodal_cfg.mlp_ratio is {ratio}; it must be 4, open_clip builds no other decoder"
        )


def build_coca(config: dict[str, Any]) -> nn.Module:
    """open_clip's ``CoCa`` with every weight drawn: it leaves the decoder's projection as the memory is."""
    clip = CoCa(**config)
    projection = clip.text_decoder.text_projection
    nn.init.normal_(projection, std=projection.shape[0] ** -0.5)  # what its unused `init_parameters` says
    return clip


def decoder_states(decoder: nn.Module, image_tokens: Tensor, text_tokens: Tensor) -> Tensor:
    """What open_clip's ``MultimodalTransformer`` has before its last product.

    Args:
        decoder: ``clip.text_decoder``.
        image_tokens: (B, N, width), second part of what the image tower gives.
        text_tokens: (B, T, width), second part of what the text tower gives.

    Returns:
        (B, T, width); times ``decoder.text_projection`` these are the logits of each next word.
    """
    x, mask = text_tokens, decoder.attn_mask[: text_tokens.shape[1], : text_tokens.shape[1]]
    for block, cross in zip(decoder.resblocks, decoder.cross_attn, strict=True):
        if decoder.grad_checkpointing and torch.is_grad_enabled():
            x = checkpoint(block, x, None, None, mask, use_reentrant=False)
            x = checkpoint(cross, x, image_tokens, image_tokens, None, use_reentrant=False)
        else:
            x = cross(block(x, attn_mask=mask), k_x=image_tokens, v_x=image_tokens)
    states: Tensor = decoder.ln_final(x)
    return states


def count_targets(clip: nn.Module, tokens: Tensor) -> Tensor:
    """How many tokens of int64 (B, T) a decoder is asked for: all but the first and padding; a scalar."""
    return (tokens[:, 1:] != clip.pad_id).sum()


def caption_nats(clip: nn.Module, image_tokens: Tensor, text_tokens: Tensor, tokens: Tensor) -> Tensor:
    """The captions' negative log-likelihood, summed over `count_targets` tokens.

    Words are taken a block at a time, real ones first, and their logits are computed again in the backward
    pass: (B, T, vocabulary) never exists.

    Args:
        clip: A ``CoCa``.
        image_tokens: (B, N, width).
        text_tokens: (B, T, width) of the whole captions.
        tokens: int64 (B, T).

    Returns:
        Scalar float32, in nats; divided by `count_targets` it is open_clip's caption loss.

    Source: Yu et al. 2022 (arXiv:2205.01917), section 3.2.
    """
    states = decoder_states(clip.text_decoder, image_tokens, text_tokens[:, :-1]).flatten(0, 1)
    labels = tokens[:, 1:].flatten()
    real = labels != clip.pad_id
    order = real.to(torch.uint8).argsort(descending=True, stable=True)
    states, labels = states.index_select(0, order), labels.index_select(0, order)
    projection = clip.text_decoder.text_projection
    size, count = max(1, LOGITS_AT_ONCE // projection.shape[1]), int(real.sum().item())
    total = torch.zeros((), device=states.device)
    for start in range(0, len(labels), size):
        if start and start >= count:
            break
        part = slice(start, start + size)
        total = total + checkpoint(
            _nats, states[part], projection, labels[part], clip.pad_id, use_reentrant=False
        )
    return total


def _nats(states: Tensor, projection: Tensor, labels: Tensor, pad_id: int) -> Tensor:
    logits = (states @ projection).float()
    return F.cross_entropy(logits, labels, ignore_index=pad_id, reduction="sum")
