"""Prompts as what the denoiser is conditioned on, and a run's prompts as a table: encoded once, or at every step."""

from collections.abc import Sequence
from typing import Any, Protocol

import torch

from dbcli.diffusion.families.conditioning import Conditioning
from dbcli.diffusion.families.family import Family, Ids
from dbcli.diffusion.unloading import reloaded
from dbcli.diffusion.word_vectors import written_out
from dbcli.prompt_text import cleaned, from_word

# As many as any usual run has: how many are encoded at once decides last bits of each.
ENCODED_AT_ONCE = 512


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


class PromptReader(Protocol):
    """What encodes prompts: a base, or anything else with a family, its text encoders and their tokenizers.

    With `zero_negative` no negative prompt is zeros.
    """

    family: Family
    tokenizers: dict[str, Any]
    zero_negative: bool

    @property
    def encoders(self) -> dict[str, Any]: ...


def ids_of(model: PromptReader, prompts: Sequence[str]) -> Ids:
    """The token numbers of prompts for every text encoder."""
    read = model.family.token_ids or token_ids
    return {name: read(tokenizer, prompts) for name, tokenizer in model.tokenizers.items()}


def encode_ids(model: PromptReader, ids: Ids) -> Conditioning:
    """What token numbers mean, with gradients where a text encoder has them."""
    with reloaded(*model.encoders.values()):
        return model.family.encode(model.encoders, ids, 0)


@torch.no_grad()
def embed_prompts(model: PromptReader, prompts: Sequence[str], *, clip_skip: int = 0) -> Conditioning:
    """The conditioning of prompts, each distinct prompt encoded once, at most ENCODED_AT_ONCE of them at a time.

    clip_skip n takes the n-th hidden state before the usual one.
    """
    distinct = list(dict.fromkeys(prompts))
    pieces = [distinct[begin : begin + ENCODED_AT_ONCE] for begin in range(0, max(1, len(distinct)), ENCODED_AT_ONCE)]
    with reloaded(*model.encoders.values()):
        parts = [model.family.encode(model.encoders, ids_of(model, piece), clip_skip) for piece in pieces]
    embedded = parts[0] if len(parts) == 1 else Conditioning.cat(parts)
    places = {prompt: place for place, prompt in enumerate(distinct)}
    return embedded.rows([places[prompt] for prompt in prompts])


@torch.no_grad()
def embed_pairs(
    model: PromptReader, prompts: Sequence[str], negatives: Sequence[str], *, clip_skip: int = 0
) -> tuple[Conditioning, Conditioning]:
    """The conditioning of prompts and that of as many negative ones, "" for none; all encoded at once."""
    both = embed_prompts(model, [*prompts, *negatives], clip_skip=clip_skip)
    positive, negative = both.rows(slice(len(prompts))), both.rows(slice(len(prompts), None))
    if model.zero_negative:
        kept = torch.tensor([bool(one) for one in negatives], device=negative.states.device)
        negative = negative.each(lambda tensor: tensor * kept.view(-1, *([1] * (tensor.ndim - 1))))
    return positive, negative


class PromptTable(Protocol):
    """Gives the conditioning of prompts by their index."""

    def rows(self, indices: Sequence[int]) -> Conditioning: ...


class FrozenPrompts:
    """Prompts of text encoders that do not learn: one encoding serves the whole run."""

    def __init__(self, model: PromptReader, prompts: Sequence[str], device: torch.device) -> None:
        self._embedded = embed_prompts(model, prompts).to(device)

    def rows(self, indices: Sequence[int]) -> Conditioning:
        return self._embedded.rows(indices)


class LearningPrompts:
    """Prompts of text encoders that learn: tokenised once, every distinct one of a batch encoded once a step."""

    def __init__(self, model: PromptReader, prompts: Sequence[str], device: torch.device) -> None:
        self._model = model
        self._ids = {name: ids.to(device) for name, ids in ids_of(model, prompts).items()}

    def rows(self, indices: Sequence[int]) -> Conditioning:
        distinct = list(dict.fromkeys(indices))
        embedded = encode_ids(self._model, {name: ids[distinct] for name, ids in self._ids.items()})
        return embedded.rows([distinct.index(index) for index in indices])
