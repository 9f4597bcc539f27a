"""Prompts as what the denoiser is conditioned on, and a run's prompts as a table: encoded once, or at every step."""

from collections.abc import Sequence
from typing import Any, Protocol

import torch

from dbcli.diffusion.word_vectors import written_out
from dbcli.prompt_text import cleaned, from_word


def token_ids(tokenizer: Any, prompts: Sequence[str]) -> torch.Tensor:
    """int64 `[N, L]`, cleaned as CLIP's training did, padded and cut to the tokenizer's own length L.

    Added words of several vectors are written out.
    """
    clean = [written_out(tokenizer, cleaned(prompt)) for prompt in prompts]
    ids: torch.Tensor = tokenizer(
        clean, padding="max_length", max_length=tokenizer.model_max_length, truncation=True, return_tensors="pt"
    ).input_ids
    return ids


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
    embedded: torch.Tensor = text_encoder(ids.to(text_encoder.device)).last_hidden_state
    return embedded


@torch.no_grad()
def embed_prompts(tokenizer: Any, text_encoder: Any, prompts: Sequence[str], *, clip_skip: int = 0) -> torch.Tensor:
    """Embeddings `[N, L, D]` of prompts, each distinct prompt encoded once.

    clip_skip n takes the n-th hidden state before the last, through the final layer norm.
    """
    distinct = list(dict.fromkeys(prompts))
    ids = token_ids(tokenizer, distinct).to(text_encoder.device)
    if clip_skip:
        hidden = text_encoder(ids, output_hidden_states=True).hidden_states[-(clip_skip + 1)]
        embedded: torch.Tensor = getattr(text_encoder, "text_model", text_encoder).final_layer_norm(hidden)
    else:
        embedded = embed_ids(text_encoder, ids)
    return embedded[[distinct.index(prompt) for prompt in prompts]]


class PromptTable(Protocol):
    """Gives conditioning `[len(indices), L, D]` for prompts by their index."""

    def rows(self, indices: Sequence[int]) -> torch.Tensor: ...


class FrozenPrompts:
    """Prompts of a text encoder that does not learn: one encoding serves the whole run."""

    def __init__(self, tokenizer: Any, text_encoder: Any, prompts: Sequence[str], device: torch.device) -> None:
        self._embedded = embed_prompts(tokenizer, text_encoder, prompts).to(device)

    def rows(self, indices: Sequence[int]) -> torch.Tensor:
        return self._embedded[torch.as_tensor(list(indices), device=self._embedded.device)]


class LearningPrompts:
    """Prompts of a text encoder that learns: tokenised once, every distinct one of a batch encoded once a step."""

    def __init__(self, tokenizer: Any, text_encoder: Any, prompts: Sequence[str], device: torch.device) -> None:
        self._ids = token_ids(tokenizer, prompts).to(device)
        self._text_encoder = text_encoder

    def rows(self, indices: Sequence[int]) -> torch.Tensor:
        distinct = list(dict.fromkeys(indices))
        embedded = embed_ids(self._text_encoder, self._ids[torch.as_tensor(distinct, device=self._ids.device)])
        places = torch.as_tensor([distinct.index(index) for index in indices], device=embedded.device)
        return embedded[places]
