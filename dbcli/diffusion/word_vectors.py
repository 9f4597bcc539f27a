"""Words of a run's own in a text encoder: vectors behind the last row of its table, which itself stays as it is.

Textual inversion (Gal et al. 2023) learns nothing but such vectors. A word of n vectors is written out as the tokens
`word word_1 … word_{n-1}`, which is what diffusers does with an embedding that it loads.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import nn

from dbcli.errors import BaseMissing, UnsupportedFile
from dbcli.prompt_text import cleaned

CONTROL_TOKENS = ("bos_token", "eos_token", "pad_token", "unk_token")


class TextModel(Protocol):
    """What words are added to: a base, or anything else with tokenizers and text encoders."""

    tokenizers: dict[str, Any]

    @property
    def encoders(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class WordVectors:
    """What stands for one word in a text encoder: float `[n, D]`, as they lie in a file.

    `more` are those in further text encoders, as many each, by the encoder's name.
    """

    word: str
    vectors: torch.Tensor
    more: Mapping[str, torch.Tensor] = field(default_factory=dict)

    def of(self, encoder: str) -> torch.Tensor:
        """The vectors in a text encoder."""
        return self.more.get(encoder, self.vectors)

    def each(self, change: Callable[[torch.Tensor], torch.Tensor]) -> WordVectors:
        """The same with every encoder's vectors changed."""
        more = {name: change(vectors) for name, vectors in self.more.items()}
        return WordVectors(self.word, change(self.vectors), more)


class WidenedEmbedding(nn.Module):
    """The first `known` rows of a token table, and rows behind them; an index below gives what the table gives."""

    def __init__(self, table: nn.Embedding, known: int) -> None:
        super().__init__()
        self.table, self.known = table, known
        self.added = nn.ParameterList()

    @property
    def height(self) -> int:
        """How many rows there are in all."""
        return self.known + sum(len(one) for one in self.added)

    @property
    def weight(self) -> torch.Tensor:
        """All rows as one table `[height, D]`, float32."""
        return torch.cat([self.table.weight[: self.known].float(), *(one.float() for one in self.added)])

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """`[…]` token numbers to `[…, D]`. Gradients reach the added rows alone: no table of their size is made."""
        rows = nn.functional.embedding((ids - self.known).clamp_min(0), torch.cat(list(self.added)))
        old = self.table(ids.clamp_max(self.known - 1))
        return torch.where((ids >= self.known)[..., None], rows.to(old.dtype), old)


def add_words(model: TextModel, words: Sequence[WordVectors]) -> list[dict[str, nn.Parameter]]:
    """Teaches a model words; returns for each its vectors by text encoder, as they now lie there, not yet learning.

    They are float32 on its device. The model gets tokenizers of its own. A word is matched as a whole and in any case,
    as the tokenizer folds it. Raises UnsupportedFile for vectors of another width than a text encoder's, BaseMissing
    for a tokenizer that does not fit its encoder.
    """
    if not words:
        return []
    made: list[dict[str, nn.Parameter]] = [{} for _ in words]
    for name, encoder in model.encoders.items():
        tokenizer, embedding = copy.deepcopy(model.tokenizers[name]), encoder.get_input_embeddings()
        if not isinstance(embedding, WidenedEmbedding):
            # A table may have more rows than there are tokens; the tokenizer never asks for those.
            embedding = WidenedEmbedding(embedding, min(len(tokenizer), embedding.num_embeddings))
        answers = dict(getattr(tokenizer, "placeholders", {}))
        for one, vectors in zip(words, made, strict=True):
            vectors[name] = _added(tokenizer, embedding, answers, one.word, one.of(name))
        tokenizer.placeholders = answers
        model.tokenizers[name] = tokenizer
        encoder.set_input_embeddings(embedding)
    return made


def _added(
    tokenizer: Any, embedding: WidenedEmbedding, answers: dict[str, str], spelling: str, vectors: torch.Tensor
) -> nn.Parameter:
    """One word in one tokenizer and the table of its encoder; `answers` are the words spelt otherwise there."""
    from transformers import AddedToken

    width = embedding.table.embedding_dim
    if vectors.ndim != 2 or vectors.shape[1] != width:
        raise UnsupportedFile(
            f"The vectors of '{spelling}' have the shape {list(vectors.shape)}, not {width} numbers each.",
            hint="Choose the base that they were trained on.",
        )
    # A prompt is cleaned before it becomes tokens: a word that this changes would never be met in one.
    word = cleaned(spelling)
    placeholder = placeholder_for(tokenizer, word)
    tokens = token_names(placeholder, len(vectors))
    first = embedding.height
    tokenizer.add_tokens([AddedToken(token, single_word=True, normalized=True) for token in tokens])
    numbers = tokenizer.convert_tokens_to_ids(tokens)
    if numbers != list(range(first, first + len(tokens))):
        raise BaseMissing(
            f"No word can be added to this base: its tokenizer gives '{spelling}' the id {numbers[0]}, and its "
            f"text encoder has {first} rows.",
            hint="Choose a base whose tokenizer and text encoder fit.",
        )
    if placeholder != word:
        answers[word] = placeholder
    parameter = nn.Parameter(vectors.detach().float().clone().to(embedding.table.weight.device), False)
    embedding.added.append(parameter)
    return parameter


def placeholder_for(tokenizer: Any, word: str) -> str:
    """The token that stands for a word: the word itself, or `<word>` where it is a piece of other words already."""
    return f"<{word}>" if {word, word.lower()} & tokenizer.get_vocab().keys() else word


def placeholder_of(tokenizer: Any, word: str) -> str:
    """The token that stands for a word that was added."""
    clean = cleaned(word)
    return str(getattr(tokenizer, "placeholders", {}).get(clean, clean))


def answer_to(tokenizer: Any, words: Sequence[str]) -> None:
    """Lets a tokenizer of a folder that has the token `<word>` take it for the plain word too."""
    clean = map(cleaned, words)
    found = {word: f"<{word}>" for word in clean if f"<{word}>" in tokenizer.added_tokens_encoder}
    tokenizer.placeholders = getattr(tokenizer, "placeholders", {}) | found


def added_tokens(tokenizer: Any, word: str) -> list[int]:
    """The numbers of a word's tokens, one a vector, after it was added."""
    return [tokenizer.added_tokens_encoder[name] for name in _names_of(tokenizer, placeholder_of(tokenizer, word))]


def token_names(placeholder: str, count: int) -> list[str]:
    """The tokens of `count` vectors, as diffusers numbers them: word, word_1, word_2, …"""
    return [placeholder, *(f"{placeholder}_{number}" for number in range(1, count))]


def written_out(tokenizer: Any, prompt: str) -> str:
    """A prompt with every added word of several vectors as all of its tokens; other prompts as they are."""
    words = _spellings(tokenizer)
    if not words:
        return prompt
    return _any_of(words).sub(lambda match: words[match.group().casefold()], prompt)


def _spellings(tokenizer: Any) -> dict[str, str]:
    """Every word that has to be written out, folded, and its tokens in a row."""
    added = tokenizer.added_tokens_encoder
    if len(added) <= len({str(getattr(tokenizer, name)) for name in CONTROL_TOKENS} & added.keys()):
        return {}
    found = {}
    for word, placeholder in ({word: word for word in added} | getattr(tokenizer, "placeholders", {})).items():
        tokens = _names_of(tokenizer, placeholder)
        if tokens != [word]:
            found[word.casefold()] = " ".join(tokens)
    return found


def _names_of(tokenizer: Any, placeholder: str) -> list[str]:
    """The tokens of an added word, counted among those that the tokenizer has."""
    count = 1
    while f"{placeholder}_{count}" in tokenizer.added_tokens_encoder:
        count += 1
    return token_names(placeholder, count)


def _any_of(words: Mapping[str, str]) -> re.Pattern[str]:
    def whole(word: str) -> str:
        before = r"(?<!\w)" if word[0].isalnum() else ""
        after = r"(?!\w)" if word[-1].isalnum() else ""
        return before + re.escape(word) + after

    # The longest first: `<cat>` holds `cat`.
    return re.compile("|".join(whole(word) for word in sorted(words, key=len, reverse=True)), re.IGNORECASE)


def start_vectors(model: TextModel, word: str, initializer: str, count: int) -> WordVectors:
    """Where the `count` vectors of a word begin, float32: at the tokens of one that says roughly what is meant.

    Vector i takes the i-th token, from the first again after the last; a word of more tokens than there are vectors
    gives each of them its tokens' mean (Gal et al. 2023, section 3: "a single-word coarse descriptor").
    Raises ValueError where the word has no token.
    """
    first, *others = [
        _start(model.tokenizers[name], encoder, initializer, count) for name, encoder in model.encoders.items()
    ]
    return WordVectors(word, first, dict(zip(list(model.encoders)[1:], others, strict=True)))


def _start(tokenizer: Any, encoder: Any, initializer: str, count: int) -> torch.Tensor:
    ids = tokenizer(cleaned(initializer), add_special_tokens=False).input_ids
    if not ids:
        raise ValueError(f"{initializer!r} has no token")
    table: torch.Tensor = encoder.get_input_embeddings().weight.detach().float()
    rows = table[torch.as_tensor(ids, device=table.device)]
    if len(ids) > count:
        return rows.mean(0, keepdim=True).repeat(count, 1)
    return rows[torch.arange(count, device=rows.device) % len(ids)].clone()


def fold_words(model: TextModel) -> None:
    """Makes one ordinary table of each text encoder's table and its added rows: what a model folder can hold."""
    for encoder in model.encoders.values():
        embedding = encoder.get_input_embeddings()
        if isinstance(embedding, WidenedEmbedding):
            table = nn.Embedding.from_pretrained(embedding.weight.detach().clone(), freeze=True)
            encoder.set_input_embeddings(table)
            encoder.config.vocab_size = table.num_embeddings
