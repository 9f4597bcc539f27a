"""The prompts of a run as a table the trainer looks rows up in: encoded once, or anew at every step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch

from dbcli.diffusion.conditioning import embed_ids, embed_prompts, token_ids


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
