"""Textual inversion (Gal et al. 2023): new word vectors are all that learns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from dbcli.diffusion.adapters.attach import Trainable, freeze
from dbcli.diffusion.word_vectors import WordVectors, add_words

if TYPE_CHECKING:
    from dbcli.diffusion.bases.base import Base

METHOD = "textual-inversion"
PREFIX = "vectors."


def make_inversion(base: Base, words: Mapping[str, WordVectors]) -> Trainable:
    """Adds each subject's word to a base that is frozen otherwise; "vectors.<subject>" are what learns, in float32.

    The text encoder has to be run at every step, though none of its weights learns: its input changes.
    """
    freeze(base.unet, base.text_encoder)
    parameters = add_words(base, list(words.values()))
    tensors = {f"{PREFIX}{subject}": vectors for subject, vectors in zip(words, parameters, strict=True)}
    for vectors in parameters:
        vectors.requires_grad_(True)
    return Trainable(METHOD, tensors, [], trains_text=True)


def learnt_vectors(trainable: Trainable) -> dict[str, torch.Tensor]:
    """Subject -> its vectors as they are now, float32 `[n, D]` on the CPU."""
    return {name.removeprefix(PREFIX): vectors.detach().cpu() for name, vectors in trainable.tensors.items()}
