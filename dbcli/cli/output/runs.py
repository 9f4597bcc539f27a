"""Runs in words and tables, and the same as JSON."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from dbcli.cli.output.training_plan import show_differences
from dbcli.cli.terminal.screen import Screen
from dbcli.cli.terminal.tables import Column, number
from dbcli.errors import DataError
from dbcli.hints import quoted_prompt
from dbcli.shares import SHARES

if TYPE_CHECKING:
    from dbcli.project.files.layout import Layout
    from dbcli.project.runs.run_store import RunRecord, RunSubject, SettingsChange
    from dbcli.project.runs.score_files import RunScores
    from dbcli.workflows.runs.manage import RunOverview

# More differences than these say less than `runs show` and `runs compare`.
SHOWN_DIFFERENCES = 5
TITLES = {
    "dino": "DINO",
    "clip_i": "CLIP-I",
    "clip_t": "CLIP-T",
    "beyond_class": "beyond class",
    "identified": "identified",
    "scene": "scene",
    "copies": "copies",
    "pres": "PRES",
    "div": "DIV",
}
COLUMNS = (
    Column("run", least=12),
    Column("subject", least=8, wraps=True),
    Column("method"),
    Column("what differs", least=22, wraps=True, drop=1),
    Column("verdict", drop=3),
    Column("DINO", drop=2, right=True),
    Column("CLIP-T", drop=2, right=True),
    Column("identified", drop=4, right=True),
    Column("scene", drop=4, right=True),
    Column("suite", drop=5),
    Column("profile", drop=6),
    Column("steps", drop=7, right=True),
    Column("loss", drop=8, right=True),
    Column("made (UTC)", drop=9),
)


def show_runs(screen: Screen, runs: Sequence[RunOverview], damaged: Sequence[str]) -> None:
    """All runs, a line each: what was learnt, how, what sets it apart from the others, and how well it scored."""
    if screen.as_json:
        documents = [
            one.record.to_plain() | {"differs": one.differs, "scores": one.scores and _scores_document(one.scores)}
            for one in runs
        ]
        screen.document({"runs": documents, "damaged": list(damaged)})
    measured = [one.scores for one in runs if one.scores is not None]
    with_suite = len({one.protocol for one in measured}) > 1
    twins = {one.judges for one in measured if len({two.judged_by for two in measured if two.judges == one.judges}) > 1}
    rows = [_row(one, with_suite=with_suite, twins=twins) for one in runs]
    screen.table(None, COLUMNS, rows, empty="No runs yet. Next: dreambooth train")
    if measured and not with_suite:
        screen.prose(f"Scores: suite {measured[0].suite}, by {measured[0].judges}.")
    screen.warn(*damaged)


def _row(run: RunOverview, *, with_suite: bool, twins: Collection[str]) -> tuple[str, ...]:
    """A line of the table; `twins` are names of judges that stand for more than one, and get their hash beside them."""
    record, scores = run.record, run.scores
    values: Mapping[str, float] = {} if scores is None else scores.values
    more = len(run.differs) - SHOWN_DIFFERENCES
    differs = [*run.differs[:SHOWN_DIFFERENCES], *([f"{more} more"] if more > 0 else [])]
    if record.state != "finished":
        differs.insert(0, f"{record.state} at step {record.step} of {record.total_steps}")
    return (
        record.name,
        ", ".join(f"{one.identifier or '?'} {one.class_noun}" for one in record.subjects),
        record.method,
        ", ".join(differs),
        ", ".join(one["short"] for one in _verdicts(record, scores)),
        number(values.get("dino")),
        number(values.get("clip_t")),
        number(values.get("identified"), ".0%"),
        number(values.get("scene"), ".0%"),
        _suite_and_judges(scores, twins) if scores is not None and with_suite else "",
        str(record.profile.get("name", "?")),
        f"{record.step}/{record.total_steps}",
        number(record.loss, ".4f"),
        record.created[:16].replace("T", " "),
    )


def _verdicts(record: RunRecord, scores: RunScores | None) -> list[Mapping[str, str]]:
    """What is said of each subject: by the evaluation where there is one, else by the look at the end of training."""
    found: Mapping[str, Mapping[str, str]] = record.probing.get("verdicts") or {}
    return list(scores.verdicts) if scores is not None and scores.verdicts else list(found.values())


def _suite_and_judges(scores: RunScores, twins: Collection[str]) -> str:
    which = f", {scores.judged_by}" if scores.judges in twins else ""
    return f"{scores.suite} ({scores.judges}{which})"


def _scores_document(scores: RunScores) -> dict[str, object]:
    known = {"suite": scores.suite, "judges": scores.judges, "judged_by": scores.judged_by, **scores.values}
    return known | ({"verdicts": [one["text"] for one in scores.verdicts]} if scores.verdicts else {})


def show_run(screen: Screen, record: RunRecord, layout: Layout) -> None:
    """One run in full."""
    from dbcli.workflows.runs.manage import bleeding, scores_of

    warnings, scores = bleeding(layout, record.name), scores_of(layout, record.name)
    screen.document(
        record.to_plain() | {"scores": [*map(_scores_document, scores)]} | ({"bleeding": warnings} if warnings else {})
    )
    rows: list[tuple[str, object]] = [
        ("state", record.state + (f": {record.error}" if record.error else "")),
        ("subjects", ", ".join(map(_learnt, record.subjects))),
        ("base", f"{record.base.name} ({(record.base.hash or '?')[:12]})"),
        ("method", f"{_method(record)}, profile {record.profile.get('name', '?')}"),
        ("continues", record.parent),
        ("imported", record.imported_from.get("file")),
        ("steps", f"{record.step} of {record.total_steps}" if record.total_steps else None),
        *(("" if number else "changed", _change_line(one)) for number, one in enumerate(record.changes)),
        ("learning rate", _learning_rate(record)),
        ("loss", number(record.loss, ".4f")),
        ("prior", record.prior.get("line")),
        ("held out", record.held_out.get("line")),
        ("probes", record.probing.get("line")),
        *(("scores" if number == 0 else "", _score_line(one)) for number, one in enumerate(scores)),
        ("seconds", ", ".join(f"{phase} {seconds:.1f}" for phase, seconds in record.timings.items())),
        ("peak memory", None if record.peak_memory_bytes is None else f"{record.peak_memory_bytes / 1e9:.2f} GB"),
        ("device", ", ".join(filter(None, (record.device, record.precision))) or None),
        ("checkpoints", _checkpoints_line(layout, record)),
        ("folder", layout.shown(layout.run_dir(record.name))),
    ]
    screen.facts(f"Run {record.name}", rows)
    _show_settings(screen, record, layout)
    screen.warn(*warnings)
    newest = max(scores, key=lambda one: one.written, default=None)
    for one in _verdicts(record, newest):
        screen.prose(one["text"], style="bold")
    if record.state == "finished" and record.subjects:
        screen.next(f"dreambooth generate {quoted_prompt(f'a {record.subjects[0].text} in space')}")


def _method(record: RunRecord) -> str:
    """The method, and of a lora run the kind of its adapter where that is not a plain LoRA."""
    from dbcli.workflows.sharing.export import KINDS

    lora = record.profile.get("lora", {}) if record.method == "lora" else {}
    kind, dora = lora.get("kind", "lora"), lora.get("dora", False)
    name = ("DoRA" if dora else "") if kind == "lora" else KINDS.get(kind, kind)
    return f"{record.method} ({name})" if name else record.method


def _learning_rate(record: RunRecord) -> str | None:
    """What a run learnt with. Of an imported one only its file knows: its profile is the project's, to draw with."""
    imported = record.imported_from
    if not imported:
        train = record.profile.get("train", {})
        rate = number(train.get("learning_rate"), "g")
        # Prodigy's is only a factor.
        return f"{rate} times the rate that Prodigy finds" if train.get("optimizer") == "prodigy" else rate
    try:
        return number(float(imported["metadata"]["ss_learning_rate"]), "g")
    except (KeyError, ValueError):
        return None


def _show_settings(screen: Screen, record: RunRecord, layout: Layout) -> None:
    """The settings that set a run apart from its profile; why they cannot be told, where they are damaged."""
    from dbcli.workflows.setup.effective_settings import profile_of

    # An imported run was trained elsewhere: its settings are those that this program draws it with.
    if record.imported_from:
        return
    try:
        profile = profile_of(layout, record)
    except DataError as error:
        screen.warn(error.message)
        return
    show_differences(screen, layout, str(record.profile.get("name", "?")), profile)


def _score_line(scores: RunScores) -> str:
    """ "DINO 0.830, CLIP-T 0.361, identified 79% (suite tiny, by tiny-dino 3, tiny-clip)"."""
    known = [
        f"{title} {scores.values[metric]:{'.0%' if metric in SHARES else '.3f'}}"
        for metric, title in TITLES.items()
        if metric in scores.values
    ]
    return f"{', '.join(known) or 'none'} (suite {scores.suite}, by {scores.judges})"


def _change_line(change: SettingsChange) -> str:
    """What a run was resumed with: from step 40 on train.learning_rate 1e-05."""
    settings = ", ".join(f"{key} {after}" for key, (_, after) in change.settings.items())
    return f"from step {change.step} on {settings}"


def _checkpoints_line(layout: Layout, record: RunRecord) -> str | None:
    from dbcli.workflows.runs.manage import kept_steps

    steps = ", ".join(map(str, kept_steps(layout, record.name)))
    whole = record.state != "finished" or record.profile.get("train", {}).get("keep_finished") != "weights"
    return f"step {steps}" + ("" if whole else ", weights alone") if steps else None


def _learnt(subject: RunSubject) -> str:
    """A subject of a run: its words, and whether an earlier run taught it."""
    text = f"{subject.name} = {subject.identifier or '?'} {subject.class_noun}".rstrip()
    if subject.learnt_in is None:
        return text
    return f"{text} (learnt in {subject.learnt_in}, {'rehearsed' if subject.rehearsed else 'not rehearsed'})"
