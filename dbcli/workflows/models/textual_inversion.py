"""Textual inversion in a run: where its vectors begin, how they are kept, and what the method leaves out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from dbcli.errors import ConfigError
from dbcli.project.files.atomic import commit_folder, temporary_folder
from dbcli.project.files.layout import Layout
from dbcli.project.files.names import NAME_PATTERN, printable
from dbcli.project.prompts.identifiers import Words, render_with
from dbcli.project.runs.run_store import RunRecord, RunSubject
from dbcli.project.settings.profile_settings import Profile

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from dbcli.diffusion.adapters.attach import Trainable
    from dbcli.diffusion.bases.base import Base
    from dbcli.diffusion.word_vectors import WordVectors

INVERSION: Final = "textual-inversion"


def has_prior(profile: Profile) -> bool:
    """Whether class images take part: never in textual inversion, which changes nothing the base knows of a class."""
    return profile.prior.enabled and profile.method != INVERSION


def open_words(base: Base, profile: Profile, subjects: Sequence[RunSubject]) -> Trainable:
    """Gives every subject's identifier vectors of its own, which are then all that learns.

    Raises ConfigError where a prompt has no room for them, or where the initializer says nothing.
    """
    from dbcli.diffusion.adapters.attach import make_inversion
    from dbcli.diffusion.word_vectors import start_vectors

    count, words = profile.inversion.vectors, {}
    for subject in subjects:
        initializer = profile.inversion.initializer or subject.class_noun
        try:
            words[subject.name] = start_vectors(base, str(subject.identifier), initializer, count)
        except ValueError as fault:
            raise ConfigError(f"inversion.initializer: the base does not know '{printable(initializer)}'.") from fault
    trainable = make_inversion(base, words)
    for subject in subjects:
        _check_room(base, profile, subject)
    return trainable


def _check_room(base: Base, profile: Profile, subject: RunSubject) -> None:
    from dbcli.diffusion.conditioning import token_ids
    from dbcli.diffusion.word_vectors import added_tokens

    words = Words(str(subject.identifier), subject.class_noun)
    # The longest: the others have more room.
    prompt = max((render_with(one, {subject.name: words}) for one in profile.images.templates), key=len)
    wanted = added_tokens(base.tokenizer, words.identifier)
    if not set(wanted) <= set(token_ids(base.tokenizer, [prompt])[0].tolist()):
        raise ConfigError(
            f"inversion.vectors is {len(wanted)}: '{printable(prompt)}' has no room for that many; this base reads "
            f"{base.max_tokens - 2} tokens of a prompt.",
            hint=f"--set inversion.vectors={max(1, base.max_tokens // 4)}",
        )


def by_subject(subject: RunSubject) -> str:
    """The name of a word's file inside a run."""
    return f"{subject.name}.safetensors"


def by_word(subject: RunSubject) -> str:
    """The name of a word's file elsewhere: AUTOMATIC1111 and ComfyUI take the word from it, where it can be one."""
    word = subject.identifier or ""
    return f"{word if NAME_PATTERN.fullmatch(word) else subject.name}.safetensors"


def write_words(folder: Path, subjects: Sequence[RunSubject], base: Base, trainable: Trainable) -> None:
    """Writes what a run has learnt, one embedding file per subject, in full precision."""
    from dbcli.diffusion.adapters.attach import learnt_vectors

    learnt = [learnt_vectors(base, trainable, one.name, str(one.identifier)) for one in subjects]
    write_vectors(folder, subjects, base, {one.word: one for one in learnt})


def write_vectors(folder: Path, subjects: Sequence[RunSubject], base: Base, vectors: Mapping[str, WordVectors]) -> None:
    """Writes one embedding file per subject, `vectors` by identifier, under the spelling that this base can add."""
    from dataclasses import replace

    from dbcli.diffusion.formats.embedding_files import write_embedding
    from dbcli.diffusion.word_vectors import placeholder_for, placeholder_of

    for subject in subjects:
        word = str(subject.identifier)
        known = placeholder_of(base.tokenizer, word)
        spelt = known if known in base.tokenizer.added_tokens_encoder else placeholder_for(base.tokenizer, word)
        write_embedding(folder / by_subject(subject), replace(vectors[word], word=spelt))


def read_words(
    folder: Path, subjects: Sequence[RunSubject], named: Callable[[RunSubject], str] = by_subject
) -> list[WordVectors]:
    """The words of a run, a subject each, from files that write_words or an export wrote."""
    from dataclasses import replace

    from dbcli.diffusion.formats.embedding_files import read_embedding

    # The name in the file may be another spelling: the run says what it answers to.
    return [replace(read_embedding(folder / named(subject)), word=str(subject.identifier)) for subject in subjects]


def export_words(
    folder: Path,
    subjects: Sequence[RunSubject],
    words: Sequence[WordVectors],
    tokenizer: Any,
    *,
    dtype: torch.dtype,
    metadata: Mapping[str, str],
    for_invokeai: bool = False,
) -> None:
    """Writes words into a new folder for other programs, each under the spelling that diffusers can add.

    `for_invokeai`: under the name that InvokeAI looks for.
    """
    from dataclasses import replace

    from dbcli.diffusion.formats.embedding_files import INVOKEAI_NAME, write_embedding
    from dbcli.diffusion.word_vectors import placeholder_of

    with temporary_folder(folder) as temporary:
        for subject, one in zip(subjects, words, strict=True):
            # Tensors for several text encoders are named by these.
            is_nameless = for_invokeai and not one.more
            spelt = replace(one, word=INVOKEAI_NAME if is_nameless else placeholder_of(tokenizer, one.word))
            write_embedding(temporary / by_word(subject), spelt, dtype=dtype, metadata=metadata)
        commit_folder(temporary, folder)


def spellings(layout: Layout, record: RunRecord) -> dict[str, str]:
    """Identifier -> how diffusers has to be told it; the same but for words that are pieces of others: `<hta>`."""
    from dbcli.diffusion.formats.embedding_files import read_embedding

    if record.method != INVERSION:
        return {subject.identifier or "": subject.identifier or "" for subject in record.subjects}
    folder = layout.weights_dir(record.name)
    return {str(subject.identifier): read_embedding(folder / by_subject(subject)).word for subject in record.subjects}
