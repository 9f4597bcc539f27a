"""A run that continues a finished one: its subjects rehearsed, its settings carried over."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dbcli.errors import Refused, UsageError
from dbcli.project.files.layout import Layout
from dbcli.project.files.names import printable
from dbcli.project.prompts.identifiers import check_identifier
from dbcli.project.runs.checkpoints import LORA_FILE
from dbcli.project.runs.run_store import RunRecord, RunSubject
from dbcli.project.settings.combinations import share_rates
from dbcli.project.settings.profile_settings import Profile
from dbcli.project.settings.profiles import parse_sets
from dbcli.project.settings.project_settings import load_settings
from dbcli.project.subjects.known_runs import run_meant
from dbcli.project.subjects.lineage import as_learnt, check_words, earlier_subjects, weights_seal
from dbcli.project.subjects.subject_record import Subject, current_names
from dbcli.project.subjects.subject_store import list_subjects, load_subject, verify_words
from dbcli.workflows.models.weights import bundled_words
from dbcli.workflows.setup.effective_settings import Carried, profile_of
from dbcli.workflows.subjects.identifiers import token_check

CONTINUABLE = ("full", "lora")
# What the shape of an adapter's tensors decides, and no setting can change afterwards.
ADAPTER_KEYS = (
    *("kind", "rank", "alpha", "targets", "dora", "rslora", "init", "least_rank"),
    *("factor", "decompose_both", "tucker"),
)


@dataclass(frozen=True)
class Continuation:
    """The run that is continued, the seal of its weights, and its subjects that are not taught again.

    rehearsed[i] are the photos of earlier[i]; none at all where nothing is rehearsed.
    """

    parent: RunRecord
    seal: str
    earlier: list[RunSubject]
    rehearsed: list[Subject]


def parent_run(layout: Layout, text: str) -> RunRecord:
    """The run named by --from. Raises RunMissing, UnsafeFile for damage, Refused for another base or method."""
    parent = run_meant(layout, text)
    weights_seal(layout, parent)
    if parent.method not in CONTINUABLE:
        raise Refused(
            f"The run {parent.name} is {parent.method}; only {' and '.join(CONTINUABLE)} can be continued.",
            hint="start from the base: leave --from out",
        )
    if parent.method == "lora":
        _refuse_magnitudes(layout, parent)
        _refuse_bundled_words(layout, parent)
    expected = load_settings(layout).base_hash
    if expected is not None and parent.base.hash is not None and parent.base.hash != expected:
        raise Refused(
            f"The run {parent.name} has another base ({parent.base.name}, {parent.base.hash[:12]}) than this "
            f"project ({expected[:12]}).",
            hint=f"dreambooth runs show {parent.name}",
        )
    return parent


def _refuse_magnitudes(layout: Layout, parent: RunRecord) -> None:
    """Raises Refused for an imported DoRA that can only be drawn with; told from its header, before a run is made."""
    from dbcli.diffusion.files.model_files import open_weights
    from dbcli.diffusion.formats.kind_checks import only_merges

    if only_merges(open_weights(layout.weights_dir(parent.name) / LORA_FILE)):
        raise Refused(
            f"The run {parent.name} is a DoRA with magnitudes along its inputs, or of a LoKr or LoHa, which PEFT does "
            "not know: it can be drawn with, and not be trained further.",
            hint="start from the base: leave --from out",
        )


def _refuse_bundled_words(layout: Layout, parent: RunRecord) -> None:
    """Raises Refused for an imported LoRA with embeddings of its own: prompts would be taught as if they had none."""
    words = [f"'{printable(one.word)}'" for one in bundled_words(layout.weights_dir(parent.name))]
    if words:
        raise Refused(
            f"The run {parent.name} is a LoRA that came with the embedding{'s' * (len(words) > 1)} {', '.join(words)}: "
            "it can be drawn with, and not be trained further, as embeddings are not carried over.",
            hint="start from the base: leave --from out",
        )


def carried_from(layout: Layout, parent: RunRecord, names: Sequence[str]) -> Carried:
    """The settings of a run as another one begins with them; `names` are the subjects that it is to teach.

    Each of them gets as many steps as each had in that run; after an imported one those of the project's settings.
    """
    settings = profile_of(layout, parent).model_dump(mode="json")
    taught = sum(one.learnt_in is None for one in parent.subjects)
    # Those are for one subject, however many its file knows.
    before, now = 1 if parent.imported_from else taught, len(names) or taught or 1
    if now != before:
        settings["train"]["steps"] = -(-settings["train"]["steps"] * now // before)
    known = {subject.name for subject in parent.subjects}
    if not all(known & load_subject(layout, name).names for name in names):
        # Photos of one class would be taken for another's.
        settings["prior"]["folder"] = None
    adapter = {f"lora.{key}": settings["lora"][key] for key in ADAPTER_KEYS} if parent.method == "lora" else {}
    name = str(parent.profile.get("name", parent.name))
    return Carried(f"the run {parent.name}", name, settings, adapter)


def check_taught(
    layout: Layout,
    parent: RunRecord,
    names: Sequence[str],
    identifiers: Mapping[str, str],
    *,
    allow_collision: bool,
) -> None:
    """Holds the words of subjects to be taught against those a run learnt, before `identifiers` are given to them.

    Raises Collision, and Refused for a subject that the run learnt under other words.
    """
    taught = [load_subject(layout, name) for name in names]
    for name, subject in zip(names, taught, strict=True):
        if name in identifiers:
            subject.identifier = check_identifier(identifiers[name])
    earlier = earlier_subjects(parent, taught)
    check_words(taught, earlier, parent.name, token_check(layout, allow_collision=allow_collision))


def taught_again(layout: Layout, parent: RunRecord, *, allow_collision: bool) -> list[Subject]:
    """The subjects a run taught, to be taught on: with their photos, under the words it learnt.

    Raises UsageError where it knows none, SubjectError where photos are gone, Collision where a word clashes by now.
    """
    taught = [as_learnt(layout, one, parent.name) for one in parent.subjects if one.learnt_in is None]
    if not taught:
        raise UsageError(
            f"The run {parent.name} has no subject to train further: --subject is missing.",
            hint="add --subject NAME",
        )
    for subject in taught:
        verify_words(layout, subject, token_check(layout, allow_collision=allow_collision))
    return taught


def continuation(layout: Layout, parent: RunRecord, taught: Sequence[Subject], profile: Profile) -> Continuation:
    """Settles what of a run is carried over. Raises SubjectError where photos to rehearse from are not there."""
    earlier = earlier_subjects(parent, taught)
    prior = profile_of(layout, parent).prior
    for entry in earlier:
        if entry.learnt_in == parent.name and prior.enabled:
            entry.prior = prior.model_dump(mode="json")
        entry.rehearsed = profile.train.rehearsal_share > 0
    # A subject that was renamed since goes on under its new name, rehearsed or not.
    current = current_names(list_subjects(layout))
    for entry in earlier:
        entry.name = current.get(entry.name, entry.name)
    rehearsed = [as_learnt(layout, entry, parent.name) for entry in earlier if entry.rehearsed]
    return Continuation(parent, weights_seal(layout, parent), earlier, rehearsed)


def check_settings(layout: Layout, parent: RunRecord, profile: Profile) -> None:
    """Raises UsageError where settings do not fit the run to continue: its method, the shape of its adapter."""
    if profile.method != parent.method:
        raise UsageError(
            f"The run {parent.name} is {parent.method}; a {profile.method} run cannot continue it.",
            hint="leave --method and --profile out, or start from the base: leave --from out",
        )
    if parent.method != "lora":
        return
    before = profile_of(layout, parent).lora
    has_text = profile.train.text_encoder and parent.profile.get("train", {}).get("text_encoder")
    for key in (*ADAPTER_KEYS, *(["text_targets"] if has_text else [])):
        wanted, found = getattr(profile.lora, key), getattr(before, key)
        if wanted != found:
            raise _fixed(parent, f"lora.{key}", found, wanted)


def check_kind_asked(parent: RunRecord, carried: Carried, sets: Sequence[str]) -> None:
    """Raises UsageError where `--set` asks an adapter to be of another kind than that of the run to continue.

    Before the settings are held together: a setting that only the parent's kind knows would be blamed there instead.
    """
    key = "lora.kind"
    wanted = parse_sets(sets).get(key)
    if wanted is not None and key in carried.adapter and wanted != carried.adapter[key]:
        raise _fixed(parent, key, carried.adapter[key], wanted)


def check_rate_kept(parent: RunRecord, before: Profile, after: Profile) -> None:
    """Raises UsageError where the optimiser is changed from or to Prodigy and the other's rate would stay.

    Prodigy's is a factor, 1 as a rule; to AdamW that is a step of 1 in every weight.
    """
    optimizers, rate = (before.train.optimizer, after.train.optimizer), after.train.learning_rate
    if "prodigy" not in optimizers or share_rates(*optimizers) or rate != before.train.learning_rate:
        return
    raise UsageError(
        f"train.learning_rate would stay {rate:g}, which the run {parent.name} has for {optimizers[0]}; "
        f"{optimizers[1]} needs another.",
        hint=f"--set train.learning_rate={'1' if optimizers[1] == 'prodigy' else 'RATE, below 0.01'}",
    )


def _fixed(parent: RunRecord, key: str, found: object, wanted: object) -> UsageError:
    return UsageError(
        f"{key} is {_shown(found)} in the run {parent.name}, fixed by its adapter; {_shown(wanted)} was requested.",
        hint=f"leave {key} out, or start from the base: leave --from out",
    )


def _shown(value: object) -> str:
    """As a settings file has it."""
    return str(value).lower() if isinstance(value, bool) else str(value)
