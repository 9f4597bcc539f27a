"""CLIP's byte-pair vocabulary, and the rare words of it that the corpus binds to single pictures."""

import gzip
import importlib.util
import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pretraining.settings import PROMPT_TOKENS, VOCABULARY_SIZE

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

# words that people try first as an identifier stay free of any meaning
LEFT_FREE = frozenset({"sks", "ohwx", "zwx", "xqz", "tok", "shs", "olis"})
RARE_FROM = 40_000
MERGES = 49_152 - 256 - 2


def _byte_alphabet() -> list[str]:
    printable = [
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    ]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + index) for index in range(len(others))]


def read_vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Return CLIP's vocabulary (49,408 entries) and merges from the file that open_clip carries."""
    found = importlib.util.find_spec("open_clip")
    if found is None or found.origin is None:
        raise RuntimeError("open_clip carries CLIP's vocabulary; install open_clip_torch.")
    path = Path(found.origin).parent / "bpe_simple_vocab_16e6.txt.gz"
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        merges = [tuple(line.split()) for line in lines.read().split("\n")[1 : MERGES + 1]]
    alphabet = _byte_alphabet()
    words = alphabet + [letter + "</w>" for letter in alphabet] + ["".join(merge) for merge in merges]
    words += ["<|startoftext|>", "<|endoftext|>"]
    return {word: index for index, word in enumerate(words)}, [(first, second) for first, second in merges]


def make_tokenizer() -> "CLIPTokenizer":
    """Return the CLIPTokenizer of the base: CLIP's ids, prompts of 16 tokens."""
    from transformers import CLIPTokenizer

    vocabulary, merges = read_vocabulary()
    assert len(vocabulary) == VOCABULARY_SIZE
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=PROMPT_TOKENS)


def save_tokenizer(folder: Path) -> None:
    """Write vocab.json, merges.txt and tokenizer_config.json, which every version of transformers reads."""
    vocabulary, merges = read_vocabulary()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")
    lines = ["#version: 0.2", *(" ".join(merge) for merge in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    special = dict.fromkeys(("eos_token", "pad_token", "unk_token"), "<|endoftext|>")
    special |= {"bos_token": "<|startoftext|>", "tokenizer_class": "CLIPTokenizer"}
    settings = special | {"model_max_length": PROMPT_TOKENS}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2, sort_keys=True))


def rare_words(seed: int, count: int) -> list[str]:
    """Return `count` rare single-token words of three or four letters, the same for the same seed."""
    vocabulary, _ = read_vocabulary()
    rare = [
        word[:-4]
        for word, index in vocabulary.items()
        if index >= RARE_FROM and word.endswith("</w>") and word[:-4].isascii() and word[:-4].isalpha()
    ]
    rare = [word for word in rare if 3 <= len(word) <= 4 and word not in LEFT_FREE]
    return [rare[index] for index in np.random.default_rng(seed).permutation(len(rare))[:count]]
