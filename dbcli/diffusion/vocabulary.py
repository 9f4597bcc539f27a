"""CLIP's vocabulary without a model: which tokens a word becomes, and which single-token words are rare.

All Stable Diffusion 1 and 2 text encoders share this vocabulary, so the copy of the embedded base serves for all.
Only the tokenizers library is loaded, in a fraction of a second.
"""

import json
import re
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from dbcli.prompt_text import cleaned

# Tokens were numbered by the byte-pair merge that made them, the most frequent first: a late one is a rare one.
RARE_FROM = 40_000
FIRST_CONTROL_TOKEN = 49_406
_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def _folder() -> Path:
    return Path(str(resources.files("dbcli"))) / "embedded" / "sd" / "tokenizer"


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
    """The numbers of a text's tokens, cleaned as CLIP's training did, without start and end."""
    return tuple(token for token, _ in placed_tokens(cleaned(text)))


def placed_tokens(text: str) -> list[tuple[int, int]]:
    """The tokens of a text that is clean already, each with the place of its first character; no control tokens."""
    found = _tokenizer().encode(text)
    places = zip(found.ids, found.offsets, strict=True)
    return [(token, start) for token, (start, _) in places if token < FIRST_CONTROL_TOKEN]


def text_of(token: int) -> str:
    """How a token is written; "</w>" ends a word."""
    return str(_tokenizer().id_to_token(token))


@cache
def bound_words() -> frozenset[str]:
    """Rare words that the embedded base was taught a meaning for, so that it knows what such a word is for."""
    return frozenset(json.loads((_folder().parent.parent / "bound_tokens.json").read_text(encoding="utf-8")))


def rare_words(*, shortest: int = 3, longest: int = 4, rare_from: int = RARE_FROM) -> list[str]:
    """Single-token, word-final words of plain letters, the rarest first."""
    vocabulary = json.loads((_folder() / "vocab.json").read_text(encoding="utf-8"))
    pattern = re.compile(rf"([a-z]{{{shortest},{longest}}})</w>")
    found = {
        token: match[1]
        for entry, token in vocabulary.items()
        if token >= rare_from and (match := pattern.fullmatch(entry))
    }
    return [found[token] for token in sorted(found, reverse=True)]
