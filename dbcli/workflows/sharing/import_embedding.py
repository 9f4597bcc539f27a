"""An embedding of another program becomes a finished run: its word stands for its vectors in prompts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from dbcli.errors import UsageError
from dbcli.project.files.layout import Layout
from dbcli.project.files.names import check_name, printable, slug
from dbcli.project.prompts.identifiers import check_class_noun, check_free, check_identifier
from dbcli.project.runs.run_store import RunRecord
from dbcli.workflows.models.textual_inversion import INVERSION, write_vectors
from dbcli.workflows.progress import Progress
from dbcli.workflows.setup.effective_settings import resolve_profile
from dbcli.workflows.setup.named_paths import require_file
from dbcli.workflows.setup.open import load_project_base
from dbcli.workflows.sharing.imported_runs import ImportRequest, import_run, table_widths, widths_of
from dbcli.workflows.sharing.imported_words import Trigger, imported_subjects, known_subjects, words_of_file
from dbcli.workflows.sharing.named_base import for_another_base

if TYPE_CHECKING:
    from dbcli.diffusion.bases.base import Base
    from dbcli.diffusion.word_vectors import WordVectors


def import_embedding(layout: Layout, request: ImportRequest, progress: Progress, *, offline: bool) -> RunRecord:
    """Reads the words of an embedding file, or those that a LoRA file brings along, and keeps them as a finished run.

    A word is the file's own name for it, else the file's name; `tokens` give the words others and `class_nouns` their
    nouns, in the file's order. Raises UsageError for what is no word or not one for each, MissingError for a missing
    file, UnsupportedFile for another kind of file or another base's vectors, UnsafeFile for a damaged one, and
    Collision where a word belongs to another subject and nobody allowed it.
    """
    tokens = request.tokens
    if request.name is not None:
        check_name(request.name, "run")
    nouns = [check_class_noun(noun) for noun in request.class_nouns]
    source = request.file.expanduser()
    require_file(source, "an embedding")
    from dbcli.diffusion.files.model_files import open_weights
    from dbcli.diffusion.formats.kind_checks import check_embedding

    if source.suffix.lower() == ".safetensors":
        check_embedding(open_weights(source))
    from dbcli.diffusion.formats.embedding_files import read_embeddings

    words = read_embeddings(source)
    _check_count(words, tokens, "--token", source)
    _check_count(words, nouns, "--class", source)
    words = _named(words, tokens, source)
    title = request.name or slug(source.stem, "embedding")
    own = [] if tokens else words_of_file(open_weights(source).metadata, nounless=True)
    triggers = [
        _trigger(one.word, noun, title, own) for one, noun in zip(words, nouns or [""] * len(words), strict=True)
    ]
    words = [replace(one, word=trigger.identifier) for one, trigger in zip(words, triggers, strict=True)]
    subjects = imported_subjects(layout, title, triggers, _check_word(layout, request.allow_collision))
    with progress.stage(f"Reading {printable(source.name)}", 1) as stage:
        base = load_project_base(layout, progress, offline=offline, device="cpu")
        _check_base(layout, words, base, source, progress)
        stage.advance()
    flags = {"method": INVERSION, "inversion.vectors": max(len(one.vectors) for one in words)}
    return import_run(
        layout,
        request,
        source,
        title,
        base=base,
        profile=resolve_profile(layout, flags=flags)[1],
        subjects=subjects,
        metadata={},
        write=lambda folder: write_vectors(folder, subjects, base, {one.word: one for one in words}),
    )


def _trigger(word: str, noun: str, title: str, own: Sequence[Trigger]) -> Trigger:
    """A word as a prompt has it. This program's exports name their subjects, and spell some words `<word>`."""
    known = next((one for one in own if word in (one.identifier, f"<{one.identifier}>")), None)
    if known is None:
        return Trigger(word, noun, slug(word, slug(title, "word")))
    return Trigger(known.identifier, noun or known.class_noun, known.name or slug(known.class_noun, "word"))


def _check_count(words: Sequence[WordVectors], given: Sequence[str], option: str, source: Path) -> None:
    if given and len(given) != len(words):
        listed = ", ".join(printable(one.word, 40) for one in words)
        held = f"{len(words)} words ({listed})" if len(words) > 1 else f"one word ({listed})"
        raise UsageError(
            f"{option} was given {'once' if len(given) == 1 else f'{len(given)} times'}, and {source} contains {held}.",
            hint=f"give {option} once for each of them, or leave it out",
        )


def _named(words: Sequence[WordVectors], tokens: Sequence[str], source: Path) -> list[WordVectors]:
    if tokens:
        return [replace(one, word=check_identifier(token)) for one, token in zip(words, tokens, strict=True)]
    checked = []
    for one in words:
        try:
            checked.append(replace(one, word=check_identifier(one.word)))
        except UsageError as error:
            hint = f"--token {slug(one.word, 'sks')}"
            raise UsageError(f"{source} names its word '{printable(one.word)}', not a word.", hint=hint) from error
    return checked


def _check_word(layout: Layout, allow_collision: bool) -> Callable[[str, Trigger], None]:
    """The rule for words with vectors of their own: their tokens are new ones, so that only the same word clashes."""
    known = known_subjects(layout)
    taken = {one.identifier: one.name for one in known if one.identifier}
    nouns = sorted({one.class_noun for one in known})

    def check(_name: str, trigger: Trigger) -> None:
        if not allow_collision:
            check_free(trigger.identifier, taken, nouns)

    return check


def _check_base(layout: Layout, words: Sequence[WordVectors], base: Base, source: Path, progress: Progress) -> None:
    from dbcli.diffusion.files.model_files import open_weights

    widths = table_widths(base)
    room = base.max_tokens - 2
    for one in words:
        count = len(one.vectors)
        found = widths_of(one)
        if found != widths:
            its, ours = (" and ".join(map(str, values)) for values in (found, widths))
            said = f"{source} is an embedding for another base: its vectors have {its} values, this base's {ours}."
            raise for_another_base(said, open_weights(source).metadata, layout, "import-embedding", source)
        if count >= room:
            progress.warn(f"'{printable(one.word)}' is {count} vectors long; a prompt has room for {room} tokens here.")
