"""A file of another program as a finished run: its record, written with the weights in one step or not at all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dbcli.project.files.atomic import commit_folder, sha256_of, temporary_folder
from dbcli.project.files.layout import Layout
from dbcli.project.files.manifests import write_manifest
from dbcli.project.files.names import printable, slug, without_control_characters
from dbcli.project.runs.run_store import (
    RunBase,
    RunRecord,
    RunSubject,
    append_event,
    create_run,
    load_run,
    now,
    remove_run,
    save_run,
)
from dbcli.project.settings.profile_settings import Profile
from dbcli.workflows.typed_command import typed_command

if TYPE_CHECKING:
    from dbcli.diffusion.bases.base import Base
    from dbcli.diffusion.word_vectors import WordVectors

# What a file may say of itself and a record should keep.
KEPT_METADATA = (
    "modelspec.title",
    "modelspec.author",
    "modelspec.license",
    "modelspec.trigger_phrase",
    "ss_output_name",
    "ss_sd_model_name",
    "ss_base_model_version",
    "ss_network_dim",
    "ss_network_alpha",
    "ss_learning_rate",
)
MAX_METADATA = 500


@dataclass(frozen=True)
class ImportRequest:
    """A file to become the run `name` (else the file says, or its name does).

    `tokens` and `class_nouns` are the words it answers to, in the file's order.
    """

    file: Path
    name: str | None = None
    tokens: Sequence[str] = ()
    class_nouns: Sequence[str] = ()
    allow_collision: bool = False


def title_of(metadata: Mapping[str, str]) -> str | None:
    """What a file calls itself, as part of a run's name."""
    text = metadata.get("ss_output_name") or metadata.get("modelspec.title") or ""
    return slug(text, "") or None


def table_widths(base: Base) -> list[int]:
    """How many values a vector has in each of a base's text encoders, in their order."""
    return [int(encoder.get_input_embeddings().weight.shape[1]) for encoder in base.encoders.values()]


def widths_of(word: WordVectors) -> list[int]:
    """The same of the vectors of a word: a base has a place for it where they are alike."""
    return [int(vectors.shape[-1]) for vectors in (word.vectors, *word.more.values())]


def import_run(
    layout: Layout,
    request: ImportRequest,
    source: Path,
    title: str,
    *,
    base: Base,
    profile: Profile,
    subjects: list[RunSubject],
    metadata: Mapping[str, str],
    write: Callable[[Path], None],
) -> RunRecord:
    """Makes a finished run of weights that `write` puts into a folder; nothing is left where that fails.

    Its record says which file it comes from, and with which settings it generates.
    """
    kept = {key: without_control_characters(metadata[key])[:MAX_METADATA] for key in KEPT_METADATA if key in metadata}
    facts = {
        "state": "running",
        "method": profile.method,
        "profile": profile.model_dump(mode="json") | {"name": "imported"},
        "subjects": subjects,
        "base": RunBase(name=base.name, source=base.source, revision=base.revision, hash=base.hash),
        "allow_collision": request.allow_collision,
        "command": typed_command(),
        "imported": {"file": printable(source.name), "sha256": sha256_of(source), "metadata": kept},
    }
    run = create_run(layout, title, lambda name: RunRecord.model_validate({"name": name, **facts}))
    final = layout.weights_dir(run)
    try:
        with temporary_folder(final) as folder:
            write(folder)
            write_manifest(folder)
            commit_folder(folder, final)
    except BaseException:
        remove_run(layout, run)
        raise
    made = load_run(layout, run)
    made.state, made.finished = "finished", now()
    append_event(layout, run, {"event": "imported", "time": now(), "file": source.name})
    save_run(layout, made)
    return made
