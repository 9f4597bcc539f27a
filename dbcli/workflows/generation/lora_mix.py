"""Which runs generate together: several LoRAs at once, each with a weight, their subjects kept apart by tokens."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from dbcli.errors import Refused, UsageError
from dbcli.project.files.layout import Layout
from dbcli.project.files.names import printable
from dbcli.project.prompts.token_claims import SubjectWord
from dbcli.project.runs.run_store import RunRecord, RunSubject
from dbcli.project.settings.profile_settings import Profile
from dbcli.project.subjects.subject_record import current_names
from dbcli.project.subjects.subject_store import list_subjects
from dbcli.workflows.generation.request import RunSelection
from dbcli.workflows.models.loaded import BARE_BASE_TITLE, CHECKPOINT_KEY, RUNS_KEY, LoadedModel
from dbcli.workflows.progress import Progress
from dbcli.workflows.runs.choose import chosen_run

MOST_WEIGHT = 10.0


@dataclass(frozen=True)
class Composition:
    """The runs that generate, each with its weight; no record at all is the bare base."""

    records: tuple[RunRecord, ...]
    weights: tuple[float, ...]
    collisions: tuple[str, ...] = field(default=())
    checkpoint: int | None = None

    @property
    def is_plain(self) -> bool:
        """One run as it was trained, or the bare base."""
        return len(self.records) < 2 and all(weight == 1 for weight in self.weights)

    @property
    def whole(self) -> RunRecord | None:
        """The first run's record, knowing the subjects of all of them; for reading only, never to be saved."""
        if len(self.records) < 2:
            return self.records[0] if self.records else None
        subjects: dict[str, RunSubject] = {}
        for record in self.records:
            for subject in record.subjects:
                subjects.setdefault(subject.name, subject)
        return self.records[0].model_copy(update={"subjects": list(subjects.values())})

    @property
    def name(self) -> str | None:
        """What a person is told: "0001-dog", or "0001-dog + 0.8 x 0002-cat"; None for the bare base."""
        if self.checkpoint is not None:
            return f"{self.records[0].name}, step {self.checkpoint}"
        parts = [
            record.name if weight == 1 else f"{weight:g} x {record.name}"
            for record, weight in zip(self.records, self.weights, strict=True)
        ]
        return " + ".join(parts) or None

    def extras(self) -> dict[str, Any]:
        """What a recipe keeps of it; nothing for one run as it is, whose name says all."""
        if self.checkpoint is not None:
            return {CHECKPOINT_KEY: self.checkpoint}
        if self.is_plain:
            return {}
        runs = [
            {"run": record.name, "weight": weight} for record, weight in zip(self.records, self.weights, strict=True)
        ]
        return {RUNS_KEY: runs} | ({"allowed_collisions": list(self.collisions)} if self.collisions else {})


def compose(layout: Layout, selection: RunSelection, prompts: Sequence[str] = ()) -> Composition:
    """Settles which runs generate, with which weights; without a named run the newest that knows what `prompts` name.

    Raises RunMissing for a run that is not there or not finished, UsageError for weights that do not fit and for a
    full run among several, Refused for runs of different bases or one subject under two words, and Collision where
    subjects of different runs share a token and nobody allowed it.
    """
    if selection.checkpoint is not None and (len(selection.runs) > 1 or selection.weights is not None):
        raise UsageError("--checkpoint takes a single run at weight 1.", hint="leave --weights and the other --run out")
    records = [chosen_run(layout, name, selection.checkpoint, prompts=prompts) for name in selection.runs or (None,)]
    found = tuple(record for record in records if record is not None)
    weights = _weights(selection.weights, len(records))
    is_weighted = selection.weights is not None
    if len(records) > 1:
        _check_together(records, is_weighted=is_weighted)
    elif is_weighted:
        _check_scalable(found, is_weighted=True)
    collisions = _collisions(layout, found, allow=selection.allow_collision)
    return Composition(found, weights if found else (), collisions, selection.checkpoint)


def load_composition(
    layout: Layout, composition: Composition, profile: Profile, progress: Progress, *, offline: bool, device: Any
) -> LoadedModel:
    """The base with every run's LoRA in it by its weight; a weight of 0 leaves a run out, bit for bit."""
    from dbcli.workflows.models.weights import load_model, load_with_loras

    weighted = [
        (record, weight) for record, weight in zip(composition.records, composition.weights, strict=True) if weight != 0
    ]
    if not weighted:
        base = load_model(layout, None, progress, offline=offline, device=device)
    elif len(weighted) == 1 and weighted[0][1] == 1:
        step = composition.checkpoint
        base = load_model(layout, weighted[0][0], progress, offline=offline, device=device, checkpoint=step)
    else:
        base = load_with_loras(layout, weighted, progress, offline=offline, device=device)
    title = composition.name or BARE_BASE_TITLE
    return LoadedModel(layout, composition.whole, profile, base, title, composition.extras())


def _weights(text: str | None, count: int) -> tuple[float, ...]:
    """ "1,0.8" as numbers, one a run; ones where nobody said."""
    if text is None:
        return (1.0,) * count
    hint = "one number per --run, like --weights 1,0.8"
    parts = [part.strip() for part in text.split(",")]
    if len(parts) != count:
        raise UsageError(
            f"--weights {printable(text, 80)} has {len(parts)} number{'' if len(parts) == 1 else 's'} "
            f"for {count} run{'' if count == 1 else 's'}.",
            hint=hint,
        )
    return tuple(_weight(part, hint) for part in parts)


def _weight(text: str, hint: str) -> float:
    try:
        weight = float(text)
    except ValueError:
        weight = math.nan
    if not -MOST_WEIGHT <= weight <= MOST_WEIGHT:
        raise UsageError(
            f"--weights: '{printable(text, 40)}' is not a weight; a weight is a number from {-MOST_WEIGHT:g} to "
            f"{MOST_WEIGHT:g}.",
            hint=hint,
        )
    return weight + 0.0  # makes -0 plain 0


def _check_together(records: Sequence[RunRecord | None], *, is_weighted: bool) -> None:
    if None in records:
        raise UsageError("The bare base is already part of every run.", hint="leave --run base out")
    known = [record for record in records if record is not None]
    names = [record.name for record in known]
    if len(set(names)) < len(names):
        raise UsageError(f"A run is named twice: {', '.join(names)}.", hint="a weight above 1 makes it stronger")
    _check_scalable(known, is_weighted=is_weighted)
    first = known[0]
    for other in known[1:]:
        if other.base.hash != first.base.hash:
            raise Refused(
                f"{first.name} and {other.name} were trained on different bases ({_base(first)} and {_base(other)}); "
                "a LoRA fits only its own base.",
                hint="dreambooth runs show prints a run's base",
            )
    _check_names(known)


def _check_scalable(records: Sequence[RunRecord], *, is_weighted: bool) -> None:
    loras = [record for record in records if record.method == "lora"]
    timed = next((one for one in loras if one.profile.get("lora", {}).get("least_rank")), None)
    if timed is not None:
        raise UsageError(
            f"{timed.name} is a T-LoRA, whose ranks go by the timestep: it generates alone, at weight 1.",
            hint=f"--run {timed.name} alone" + (", without --weights" if is_weighted else ""),
        )
    full = next((record for record in records if record.method != "lora"), None)
    if full is not None:
        kind = "a whole model" if full.method == "full" else "a word"
        raise UsageError(
            f"{full.name} is a {full.method} run: {kind}, which can be neither weighted nor combined with another.",
            hint="train it with --method lora",
        )


def _check_names(records: Sequence[RunRecord]) -> None:
    """One name for two things, or one thing under two words: {dog} is ambiguous."""
    words: dict[str, tuple[str, RunSubject]] = {}
    for record in records:
        for subject in record.subjects:
            before, first = words.setdefault(subject.name, (record.name, subject))
            if (first.identifier, first.class_noun) != (subject.identifier, subject.class_noun):
                raise Refused(
                    f"'{subject.name}' is '{first.identifier} {first.class_noun}' in {before} "
                    f"and '{subject.identifier} {subject.class_noun}' in {record.name}; "
                    f"{{{subject.name}}} is ambiguous.",
                    hint="generate with one of the two runs",
                )


def _base(record: RunRecord) -> str:
    return f"{record.base.name} {(record.base.hash or '?')[:12]}"


def _collisions(layout: Layout, records: Sequence[RunRecord], *, allow: bool) -> tuple[str, ...]:
    """The clashes between subjects of different runs, where somebody allowed them. Raises Collision otherwise."""
    if len(records) < 2:
        return ()
    from dbcli.workflows.subjects.identifiers import clashes_among

    # A subject that was renamed between two runs is one subject all the same.
    current = current_names(list_subjects(layout))
    words = [
        SubjectWord(current.get(one.name, one.name), one.identifier or "", one.class_noun)
        for run in records
        for one in run.subjects
    ]
    title = f"The runs {', '.join(run.name for run in records)} cannot be combined"
    clashes: tuple[str, ...] = clashes_among(layout, words, title, allow=allow)
    return clashes
