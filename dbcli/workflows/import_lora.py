"""A LoRA of another tool becomes a finished run of the project: the same words in a prompt, the same pictures."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dbcli.errors import UnsafeFile, UsageError
from dbcli.project import runs as store
from dbcli.project.atomic import commit_folder, sha256_of, temporary_folder
from dbcli.project.identifiers import check_class_noun, check_identifier
from dbcli.project.layout import Layout
from dbcli.project.manifests import write_manifest
from dbcli.project.names import check_name, printable, slug, without_control_characters
from dbcli.project.profile_settings import Profile
from dbcli.project.runs import RunBase, RunRecord, RunSubject
from dbcli.project.subjects import Subject, list_subjects
from dbcli.workflows.named_files import require_file
from dbcli.workflows.progress import Progress
from dbcli.workflows.projects import load_project_base
from dbcli.workflows.settings import resolve_profile
from dbcli.workflows.tokens import check_new_words
from dbcli.workflows.tuned import LORA_FILE

if TYPE_CHECKING:
    from dbcli.diffusion.bases import Base
    from dbcli.diffusion.formats.lora import LoraWeights

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
)
MAX_METADATA = 500


@dataclass(frozen=True)
class Trigger:
    """The words a LoRA answers to: an identifier and a class noun; without both nothing is known of it."""

    identifier: str
    class_noun: str


def import_lora(
    layout: Layout,
    file: Path,
    *,
    name: str | None,
    token: str | None,
    class_noun: str | None,
    progress: Progress,
    offline: bool,
    allow_collision: bool = False,
) -> RunRecord:
    """Reads a kohya or diffusers LoRA, fits it to the project's base, and keeps it as a finished run.

    Words come from `token` and `class_noun`, else from the file's metadata. Raises UsageError for one word without
    the other, BaseMissing for a file that is no LoRA or was made for another base, UnsafeFile for a damaged one, and
    Collision where its words belong to another subject and nobody allowed it.
    """
    if name is not None:
        check_name(name, "run")
    asked = _asked(token, class_noun)
    source = file.expanduser()
    require_file(source, "a LoRA file")
    from dbcli.diffusion.formats.lora_files import read_lora

    with progress.stage(f"Reading {printable(source.name)}", 2) as stage:
        base = load_project_base(layout, progress, offline=offline, device="cpu")
        stage.advance()
        lora = read_lora(source, unet=base.unet, text_encoder=base.text_encoder)
        _check_values(lora, source)
        stage.advance()
    trigger = asked or trigger_of(lora.metadata)
    if trigger is None:
        progress.warn("The file does not say which words it answers to; --token and --class tell.")
    title = name or _title(lora.metadata) or source.stem
    words = [] if trigger is None else [_subject(layout, title, trigger, allow_collision)]
    run = store.create_run(layout, title, lambda run: _record(layout, run, base, lora, source, words, allow_collision))
    try:
        _write_weights(layout, run, base, lora)
    except BaseException:
        store.remove_run(layout, run)
        raise
    record = store.load_run(layout, run)
    record.state, record.finished = "finished", store.now()
    store.append_event(layout, run, {"event": "imported", "time": store.now(), "file": source.name})
    store.save_run(layout, record)
    return record


def trigger_of(metadata: Mapping[str, str]) -> Trigger | None:
    """The words in a file's own metadata: ModelSpec's trigger phrase, else the folders that kohya trained on."""
    phrases = [metadata.get("modelspec.trigger_phrase", "").partition(",")[0]]
    for key in ("ss_tag_frequency", "ss_dataset_dirs"):
        try:
            folders = json.loads(metadata.get(key, "{}"))
            phrases += [str(folder).partition("_")[2] for folder in folders] if isinstance(folders, dict) else []
        except (ValueError, RecursionError):
            continue
    for phrase in phrases:
        identifier, _, noun = without_control_characters(phrase).partition(" ")
        try:
            return Trigger(check_identifier(identifier), check_class_noun(noun))
        except UsageError:
            continue
    return None


def _asked(token: str | None, class_noun: str | None) -> Trigger | None:
    if token is None and class_noun is None:
        return None
    if token is None or class_noun is None:
        raise UsageError("--token and --class go together.", hint="for example --token sks --class dog")
    return Trigger(check_identifier(token), check_class_noun(class_noun))


def _title(metadata: Mapping[str, str]) -> str | None:
    text = metadata.get("ss_output_name") or metadata.get("modelspec.title") or ""
    return slug(text, "") or None


def _check_values(lora: LoraWeights, file: Path) -> None:
    if not (lora.unet or lora.text_encoder):
        raise UnsafeFile(f"{file} holds no layer.")
    for part in (lora.unet, lora.text_encoder):
        for name, layer in part.items():
            if not bool(layer.down.isfinite().all() and layer.up.isfinite().all()):
                raise UnsafeFile(f"{file}: {name} holds numbers that are not finite; every picture would be black.")


def _record(
    layout: Layout,
    run: str,
    base: Base,
    lora: LoraWeights,
    source: Path,
    words: list[RunSubject],
    allow_collision: bool,
) -> RunRecord:
    profile = _profile(layout, lora)
    metadata = {
        key: without_control_characters(lora.metadata[key])[:MAX_METADATA]
        for key in KEPT_METADATA
        if key in lora.metadata
    }
    return RunRecord(
        name=run,
        state="running",
        method="lora",
        profile=profile.model_dump(mode="json") | {"name": "imported"},
        subjects=words,
        base=RunBase(name=base.name, source=base.source, revision=base.revision, hash=base.hash),
        allow_collision=allow_collision,
        command=printable(" ".join(["dreambooth", *sys.argv[1:]]), 2000),
        imported={"file": printable(source.name), "sha256": sha256_of(source), "metadata": metadata},
    )


def _subject(layout: Layout, title: str, trigger: Trigger, allow_collision: bool) -> RunSubject:
    """Whose words a file answers to: a known subject's where both words are the same, else those of a new one."""
    known = [*list_subjects(layout), *(one for run in store.list_runs(layout) for one in run.subjects)]
    same = [one.name for one in known if (one.identifier, one.class_noun) == (trigger.identifier, trigger.class_noun)]
    first = slug(trigger.class_noun, slug(title, "subject"))
    taken = {one.name for one in known} - set(same)
    names = [first, *(f"{first}-{number}" for number in range(2, len(taken) + 3))]
    name = same[0] if same else next(one for one in names if one not in taken)
    if not same:
        check_new_words(layout, Subject(name=name, class_noun=trigger.class_noun), trigger.identifier, allow_collision)
    return RunSubject(name=name, class_noun=trigger.class_noun, identifier=trigger.identifier)


def _profile(layout: Layout, lora: LoraWeights) -> Profile:
    """The project's drawing settings, with the commonest rank and alpha of the file's layers."""
    layers = [*lora.unet.values(), *lora.text_encoder.values()]
    rank, alpha = (
        Counter(values).most_common(1)[0][0]
        for values in ([layer.rank for layer in layers], [layer.alpha for layer in layers])
    )
    flags = {
        "method": "lora",
        "train.text_encoder": bool(lora.text_encoder),
        "lora.rank": rank,
        "lora.alpha": alpha if alpha > 0 else float(rank),
        "lora.dora": any(layer.magnitude is not None for layer in layers),
    }
    return resolve_profile(layout, flags=flags)[1]


def _write_weights(layout: Layout, run: str, base: Base, lora: LoraWeights) -> None:
    import torch

    from dbcli.diffusion.formats.lora_writing import write_diffusers_lora

    final = layout.weights_dir(run)
    with temporary_folder(final) as folder:
        write_diffusers_lora(
            folder / LORA_FILE, lora, unet=base.unet, text_encoder=base.text_encoder, dtype=torch.float32
        )
        write_manifest(folder)
        commit_folder(folder, final)
