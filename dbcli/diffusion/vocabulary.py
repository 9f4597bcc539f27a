"""A text encoder's vocabulary without a model: which tokens a word becomes, and which single-token words are rare.

All text encoders of Stable Diffusion 1, 2 and XL share CLIP's, so the copy of the embedded base serves for all. A base
with a language model in their place has another one, which `read_with` is told of. Only the tokenizers library is
loaded, in a fraction of a second.
"""

import json
import re
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from dbcli.prompt_text import cleaned

# Tokens were numbered by the byte-pair merge that made them, the most frequent first: a late one is a rare one. Both
# numbers are CLIP's; in another vocabulary the same share of all tokens counts.
RARE_FROM = 40_000
FIRST_CONTROL_TOKEN = 49_406
# How a language model's vocabulary writes the space before a word.
SPACE = "Ġ"
# The tokenizer.json of the base that prompts are for, None for CLIP's.
_other: Path | None = None
_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def _folder() -> Path:
    return Path(str(resources.files("dbcli"))) / "embedded" / "sd" / "tokenizer"


def read_with(tokenizer: Path | None) -> None:
    """From here on texts are read with the tokenizer.json of a language model; with CLIP's where there is none."""
    global _other
    _other = tokenizer if tokenizer is not None and tokenizer.is_file() else None


def known_tokens() -> int:
    """How many tokens there are of words, without those that control."""
    if _other is None:
        return FIRST_CONTROL_TOKEN
    size: int = _language_model(_other).get_vocab_size(with_added_tokens=False)
    return size


@cache
def _language_model(file: Path) -> Any:
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(file))


@cache
def _tokenizer() -> Any:
    """CLIP's byte-pair encoder as transformers sets it up, without start and end tokens."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

    pair_encoder = models.BPE.from_file(
        str(_folder() / "vocab.json"),
        str(_folder() / "merges.txt"),
        unk_token="<|endoftext|>",
        end_of_word_suffix="</w>",
        continuing_subword_prefix="",
        fuse_unk=False,
    )
    tokenizer = Tokenizer(pair_encoder)
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    split = pre_tokenizers.Split(Regex(_WORDS), behavior="removed", invert=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    return tokenizer


def tokens_of(text: str) -> tuple[int, ...]:
    """The numbers of a text's tokens, cleaned as CLIP's training did, without start and end, as in a sentence."""
    # A language model has two tokens for a word: as it begins a text, and behind a space.
    return tuple(token for token, _ in placed_tokens(cleaned(text) if _other is None else f" {cleaned(text)}"))


def placed_tokens(text: str) -> list[tuple[int, int]]:
    """The tokens of a text that is clean already, each with the place of its first character; no control tokens."""
    tokenizer = _tokenizer() if _other is None else _language_model(_other)
    found = tokenizer.encode(text, add_special_tokens=False)
    places = zip(found.ids, found.offsets, strict=True)
    return [(token, start) for token, (start, _) in places if token < known_tokens()]


def text_of(token: int) -> str:
    """How a token is written; "</w>" ends a word."""
    if _other is not None:
        return str(_language_model(_other).decode([token], skip_special_tokens=False)).strip()
    return str(_tokenizer().id_to_token(token))


@cache
def bound_words() -> frozenset[str]:
    """Rare words that the embedded base was taught a meaning for, so that it knows what such a word is for."""
    return frozenset(json.loads((_folder().parent.parent / "bound_tokens.json").read_text(encoding="utf-8")))


def rare_words(*, shortest: int = 3, longest: int = 4, rare_from: int = RARE_FROM) -> list[str]:
    """Single-token, whole words of plain letters, the rarest first; `rare_from` is a number of CLIP's."""
    letters = rf"([a-z]{{{shortest},{longest}}})"
    if _other is None:
        vocabulary = json.loads((_folder() / "vocab.json").read_text(encoding="utf-8"))
        pattern, first = re.compile(rf"{letters}</w>"), rare_from
    else:
        vocabulary = _language_model(_other).get_vocab(with_added_tokens=False)
        pattern, first = re.compile(rf"{SPACE}{letters}"), rare_from * known_tokens() // FIRST_CONTROL_TOKEN
    found = {
        token: match[1] for entry, token in vocabulary.items() if token >= first and (match := pattern.fullmatch(entry))
    }
    return [found[token] for token in sorted(found, reverse=True)]
