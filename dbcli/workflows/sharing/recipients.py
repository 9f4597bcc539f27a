"""What the receiver of an exported file has to know: who reads it, its words and base, and what is left out where."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dbcli.project.runs.run_store import RunRecord

if TYPE_CHECKING:
    from dbcli.diffusion.bases.base import Base
    from dbcli.diffusion.formats.lora import Layer, LoraWeights

READERS = {
    "diffusers": "diffusers",
    "checkpoint": "ComfyUI, AUTOMATIC1111, InvokeAI, diffusers and every other program for Stable Diffusion",
    "lora": "diffusers (for ComfyUI, AUTOMATIC1111 and InvokeAI: --to kohya)",
    "kohya": "ComfyUI, AUTOMATIC1111, InvokeAI (and diffusers)",
    "embedding": "diffusers, ComfyUI and AUTOMATIC1111 (for InvokeAI: --to embedding-invokeai)",
    "embedding-invokeai": "InvokeAI",
}
# Of LoKr and LoHa, where no pipeline of diffusers' for Stable Diffusion takes them.
PRODUCT_READERS = "ComfyUI, AUTOMATIC1111, InvokeAI (diffusers: --to diffusers, merged)"
# The same on a base that has no format of a whole model.
UNMERGED_PRODUCT_READERS = "ComfyUI"
# Of a base of a size that no other program knows.
OWN_READER = "dreambooth alone"
ADAPTERS = ("lora", "kohya")
EMBEDDINGS = ("embedding", "embedding-invokeai")
# An adapter carries its alpha, so that its full strength is what the run generates with.
FULL_STRENGTH = 1.0
# Layers of the UNet outside its blocks, which kohya's own tools have no adapters for.
OUTSIDE_BLOCKS = ("conv_in", "conv_out", "time_embedding")
# The first and last width of the UNet's blocks and the width of its prompts, as programs look for them.
KNOWN_SIZES = {(320, 1280, 768), (320, 1280, 1024), (320, 1280, 2048)}


@dataclass(frozen=True)
class KnownSubject:
    """A subject that a file knows: `dog`, by the word `sks` before the class noun `dog`."""

    name: str
    word: str
    class_noun: str


@dataclass(frozen=True)
class Recipient:
    """What goes with a file: who reads it, its subjects with their words, the base it needs, and at which strength.

    `strength` is None where a file is a whole model or a word, which have none.
    """

    readers: str
    subjects: list[KnownSubject]
    base: str
    strength: float | None
    notes: list[str]


def subjects_of(record: RunRecord) -> list[KnownSubject]:
    """The subjects that a run learnt and has words for; an imported file may not say which it answers to."""
    return [
        KnownSubject(one.name, one.identifier, one.class_noun) for one in record.subjects if one.identifier is not None
    ]


def recipient_of(
    record: RunRecord, target: str, model: Base, lora: LoraWeights | None, spelt: Mapping[str, str]
) -> Recipient:
    """Everything to tell about one export; `lora` is what was written, if that was an adapter."""
    size_notes = _size_notes(record, target, model)
    notes = [
        *size_notes,
        *_layer_notes(target, lora.part(model.family.denoiser) if lora is not None else {}),
    ]
    notes += [
        f"'{word}' is a piece of longer words: for diffusers, write {spelling} instead."
        for word, spelling in spelt.items()
        if spelling != word
    ]
    readers = model.family.readers.get(target, READERS[target])
    if lora is not None and lora.products:
        readers = PRODUCT_READERS if "diffusers" in model.family.exports else UNMERGED_PRODUCT_READERS
    if size_notes:
        readers = OWN_READER
    return Recipient(readers, subjects_of(record), _base(record), FULL_STRENGTH if target in ADAPTERS else None, notes)


def _base(record: RunRecord) -> str:
    base = record.base
    if base.source == base.name or base.revision is None:
        return base.name
    return f"{base.name} ({base.source})"


def _size_notes(record: RunRecord, target: str, model: Base) -> list[str]:
    config: Any = model.unet.config
    widths, prompts = config.get("block_out_channels"), config.get("cross_attention_dim")
    if widths is None or (widths[0], widths[-1], prompts) in KNOWN_SIZES or target == "diffusers":
        return []
    return [
        f"The base {record.base.name} has a non-standard size: no other program loads this file "
        "(the folder of --to diffusers loads in diffusers)."
    ]


def _layer_notes(target: str, layers: Mapping[str, Layer]) -> list[str]:
    outside = sorted(name for name in layers if name.startswith(OUTSIDE_BLOCKS))
    if target != "kohya" or not outside:
        return []
    return [
        f"{', '.join(outside)}: merging with sd-scripts and diffusers 0.30 leave these layers out without an error; "
        "--to checkpoint keeps them for every program."
    ]
