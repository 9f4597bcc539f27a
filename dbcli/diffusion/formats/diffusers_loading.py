"""Exports read by diffusers' own pipeline, as somebody who receives one would load it."""

import inspect
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from dbcli.diffusion.bases.assembly import quiet_libraries
from dbcli.diffusion.bases.base import Base
from dbcli.diffusion.bases.stored_layers import shown_as_float32
from dbcli.diffusion.formats.diffusers_folder import write_settings
from dbcli.diffusion.formats.embedding_files import FIRST_NAME, FURTHER_NAMES, read_embeddings
from dbcli.diffusion.formats.lora import Layer, LoraWeights, attached_lora
from dbcli.errors import DreamboothError


def version() -> str:
    """`diffusers 0.42.1`, as it is installed here."""
    import diffusers

    return f"diffusers {diffusers.__version__}"


def misread_model(path: Path, base: Base) -> list[str]:
    """The tensors that diffusers loads from a folder or a single file otherwise than `base` holds them.

    Raises DreamboothError where diffusers does not take the file, with what it says.
    """
    import diffusers

    kind = getattr(diffusers, base.family.pipeline)
    with _quiet(), _explained(path):
        if path.is_dir():
            pipeline = kind.from_pretrained(str(path), local_files_only=True)
        else:
            with TemporaryDirectory() as settings:
                write_settings(Path(settings), base)
                pipeline = kind.from_single_file(str(path), config=settings, local_files_only=True)
    return [
        f"{part}.{name}"
        for part, network in base.networks.items()
        for name in _unlike(getattr(pipeline, part), network)
    ]


def _unlike(found: Any, expected: Any) -> list[str]:
    """Names of tensors, without `text_model.`; a single file has no rows for words that were added."""
    read = {name.removeprefix("text_model."): tensor for name, tensor in found.state_dict().items()}
    wanted = {name.removeprefix("text_model."): tensor for name, tensor in expected.state_dict().items()}
    wanted.pop("embeddings.position_ids", None)
    return [name for name, tensor in wanted.items() if name not in read or not _starts_with(tensor, read[name])]


def _starts_with(expected: torch.Tensor, found: torch.Tensor) -> bool:
    return expected.dim() == found.dim() and torch.equal(
        expected[: len(found)] if found.dim() else expected, found.float()
    )


def lora_as_diffusers_reads_it(base: Base, path: Path) -> LoraWeights:
    """The layers that `load_lora_weights` attaches to the base's networks, which are left without them.

    Raises DreamboothError where diffusers does not take the file, with what it says.
    """
    with _quiet(), _explained(path), shown_as_float32(base.tunable.values()):
        pipeline = _pipeline(base)
        pipeline.load_lora_weights(str(path.parent), weight_name=path.name, local_files_only=True)
        read = attached_lora(base.tunable)
        pipeline.unload_lora_weights()
    return read


def load_embedding(base: Base, path: Path, token: str | None = None) -> None:
    """Adds a word to the base's tokenizer and text encoder by `load_textual_inversion`, under the file's own name.

    Raises DreamboothError where diffusers does not take the file, with what it says.
    """
    from safetensors.torch import load_file

    with _quiet(), _explained(path):
        pipeline, others = _pipeline(base), list(base.encoders)[1:]
        if not others:
            pipeline.load_textual_inversion(str(path.parent), token=token, weight_name=path.name, local_files_only=True)
            return
        # Of a file for several text encoders it takes one tensor at a time, and wants to be told the word.
        tensors, (word,) = load_file(path), read_embeddings(path)
        for name, encoder in base.encoders.items():
            pipeline.load_textual_inversion(
                tensors[FURTHER_NAMES.get(name, FIRST_NAME)],
                token=token or word.word,
                text_encoder=encoder,
                tokenizer=base.tokenizers[name],
            )


def misread_layers(found: Mapping[str, Layer], expected: Mapping[str, Layer]) -> list[str]:
    """The layers that a loader left out, changed or gave another strength."""
    return [name for name, layer in expected.items() if name not in found or not _is_same(found[name], layer)]


def _is_same(found: Layer, layer: Layer) -> bool:
    read, wanted = found.tensors, layer.tensors
    return (
        math.isclose(found.scale, layer.scale, rel_tol=1e-6)
        and read.keys() == wanted.keys()
        and all(torch.equal(read[name], tensor) for name, tensor in wanted.items())
    )


def _pipeline(base: Base) -> Any:
    import diffusers

    family = base.family
    stated = family.pipeline_settings(base.zero_negative)
    settings = {name: value for name, value in stated.items() if not isinstance(value, list)}
    kind = getattr(diffusers, family.pipeline)
    if "feature_extractor" in inspect.signature(kind.__init__).parameters:
        settings["feature_extractor"] = None
    return kind(
        **base.networks,
        **{family.parts[name].tokenizer: tokenizer for name, tokenizer in base.tokenizers.items()},
        scheduler=getattr(diffusers, base.process.scheduler_class).from_config(base.scheduler_config),
        **{name: None for name, value in stated.items() if isinstance(value, list)},
        **settings,
    )


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except (ValueError, KeyError, RuntimeError, TypeError, AttributeError) as fault:
        raise DreamboothError(
            f"{version()} does not load {path.name}: {fault}",
            hint="please report this with dreambooth runs show --json",
        ) from fault


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the libraries' own bars and advice; what they raise is reported."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    # Each of the two has bars of its own; diffusers does not tell whether they are on, and nothing here wants them.
    diffusers_logging.disable_progress_bar()
    had_bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        with quiet_libraries():
            yield
    finally:
        if had_bars:
            transformers_logging.enable_progress_bar()
