"""Which tokens of the tokenizer belong to whom, and why a word cannot be given away a second time."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from dbcli.errors import Collision, UsageError
from dbcli.project.names import printable

Tokenise = Callable[[str], tuple[int, ...]]
MAX_TOKENS = 6

# What a rare-looking word means to Stable Diffusion, with where that was found.
KNOWN_MEANINGS = {
    "sks": "a rifle, the SKS: weapons creep in (github.com/XavierXiao/Dreambooth-Stable-Diffusion, issue 71)",
    "ohwx": "a word of many public tutorials; models found in the wild may have it bound already",
    "zwx": "a word of many public tutorials; models found in the wild may have it bound already",
}


@dataclass(frozen=True)
class Claim:
    """Tokens that are spoken for: an identifier of a subject, or the class noun of one."""

    owner: str
    word: str
    tokens: frozenset[int]
    is_class_noun: bool = False


@cache
def known_words() -> frozenset[str]:
    """Short words of the vocabulary that mean something."""
    lines = (Path(__file__).parent / "known_words.txt").read_text(encoding="utf-8").splitlines()
    return frozenset(word for line in lines if not line.startswith("#") for word in line.split())


def clash(word: str, tokens: Sequence[int], claims: Sequence[Claim]) -> str | None:
    """Why `word` cannot become an identifier, in a sentence; None if nothing speaks against it.

    Refused are the same tokens, any shared token, a token of a class noun, and a plain word.
    """
    own = frozenset(tokens)
    for claim in claims:
        shared = own & claim.tokens
        if not shared:
            continue
        if claim.is_class_noun:
            return f"it shares a token with the class noun '{printable(claim.word)}' of the subject '{claim.owner}'"
        how = "is" if own == claim.tokens else "shares a token with"
        return f"it {how} the identifier '{printable(claim.word)}' of the subject '{claim.owner}'"
    if re.fullmatch(r"[a-z]+", word.casefold()) and word.casefold() in known_words():
        return "it is a plain word, which the base already knows as something else"
    return None


def check_tokens(
    word: str, tokens: Sequence[int], claims: Sequence[Claim], proposals: Callable[[int], Sequence[str]]
) -> None:
    """Raises Collision with the reason and three words to take instead, UsageError for a word of too many tokens."""
    if not tokens:
        raise UsageError(f"The tokenizer makes nothing of the identifier '{printable(word)}'.", hint="--token sks")
    reason = clash(word, tokens, claims)
    if reason is None and len(tokens) > MAX_TOKENS:
        raise UsageError(
            f"The identifier '{printable(word)}' is {len(tokens)} tokens long; {MAX_TOKENS} are the most.",
            hint=f"take one of {', '.join(proposals(3))}",
        )
    if reason is not None:
        raise Collision(
            f"The identifier '{printable(word)}' cannot be used: {reason}.",
            hint=f"take one of {', '.join(proposals(3))}; dreambooth tokens suggest measures more of them",
        )
