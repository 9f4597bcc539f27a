"""Prompts as the numbers the denoiser is conditioned on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from dbcli.diffusion.word_vectors import written_out
from dbcli.prompt_text import cleaned, from_word


def token_ids(tokenizer: Any, prompts: Sequence[str]) -> torch.Tensor:
    """int64 `[N, L]`, cleaned as CLIP's training did, padded and cut to the tokenizer's own length L; added words of
    several vectors are written out."""
    clean = [written_out(tokenizer, cleaned(prompt)) for prompt in prompts]
    return tokenizer(
        clean, padding="max_length", max_length=tokenizer.model_max_length, truncation=True, return_tensors="pt"
    ).input_ids


def unread_part(tokenizer: Any, prompt: str) -> str:
    """The end of a prompt, cleaned, that `token_ids` cuts off; "" where all is read."""
    text = written_out(tokenizer, cleaned(prompt))
    # Not cut here, and so not warned of by the library either.
    tokens = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    places = tokens["offset_mapping"]
    room = int(tokenizer.model_max_length) - 2  # start and end take one each
    return from_word(text, places[room][0]) if len(places) > room else ""


def embed_ids(text_encoder: Any, ids: torch.Tensor) -> torch.Tensor:
    """The text encoder's last hidden state, `[N, L, D]`, with gradients where the encoder has them."""
    return text_encoder(ids.to(text_encoder.device)).last_hidden_state


@torch.no_grad()
def embed_prompts(tokenizer: Any, text_encoder: Any, prompts: Sequence[str], *, clip_skip: int = 0) -> torch.Tensor:
    """Embeddings `[N, L, D]` of prompts, each distinct prompt encoded once.

    clip_skip n takes the n-th hidden state before the last, through the final layer norm.
    """
    distinct = list(dict.fromkeys(prompts))
    ids = token_ids(tokenizer, distinct).to(text_encoder.device)
    if clip_skip:
        hidden = text_encoder(ids, output_hidden_states=True).hidden_states[-(clip_skip + 1)]
        inner = getattr(text_encoder, "text_model", text_encoder)
        embedded = inner.final_layer_norm(hidden)
    else:
        embedded = text_encoder(ids).last_hidden_state
    position = {prompt: row for row, prompt in enumerate(distinct)}
    return embedded[[position[prompt] for prompt in prompts]]
