"""Scores in tables, and as JSON: of one run, of runs side by side, of subjects against each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dbcli.cli.invocation import Invocation
from dbcli.cli.terminal.screen import Screen
from dbcli.cli.terminal.tables import Column, number, with_interval
from dbcli.errors import UsageError
from dbcli.hints import inside, quoted_prompt

if TYPE_CHECKING:
    from dbcli.workflows.demo import Demonstration
    from dbcli.workflows.evaluation.compare import Comparison
    from dbcli.workflows.evaluation.evaluate import Evaluation
    from dbcli.workflows.evaluation.request import EvaluateRequest

# A run's name and its score by metric, as text.
Numbers = tuple[str, Mapping[str, str]]
SCORE_COLUMNS = (
    Column("score"),
    Column("judge", drop=3),
    Column("value", right=True),
    Column("95 % interval", drop=1),
    Column("photos", drop=2, right=True),
    Column("better", drop=4),
)


def show_evaluations(screen: Screen, evaluations: Sequence[Evaluation]) -> None:
    """A table of scores per suite, the photos' own values beside them."""
    documents = [
        {"scores_file": one.scores_file, "report": one.report, "grid": one.grid, **one.scores} for one in evaluations
    ]
    screen.document({"evaluations": documents})
    for one in evaluations:
        _show_scores(screen, one)


def show_demo(screen: Screen, shown: Demonstration) -> None:
    """What the demo made, and what to type next."""
    screen.document({"project": shown.project, "run": shown.run, "grid": shown.grid, "seconds": shown.seconds})
    if shown.evaluation is not None:
        _show_scores(screen, shown.evaluation)
    seconds = ", ".join(f"{part} {value:.0f} s" for part, value in shown.seconds.items())
    screen.line(f"Done: {seconds}. Look at {shown.grid}", style="bold")
    prompt = quoted_prompt(f"a {shown.words} on a wooden table")
    screen.next(inside(shown.project, f"dreambooth generate {prompt} --grid"))


def _show_scores(screen: Screen, evaluation: Evaluation) -> None:
    from dbcli.workflows.evaluation.evaluate import score_definitions

    scores, rows = evaluation.scores, []
    judges = scores["protocol"]["judges"]
    for metric, definition in score_definitions().items():
        found = scores["overall"].get(metric)
        if found is not None:
            judge, form = judges.get(definition["judge"], {}).get("judge", ""), _form(definition)
            real = number(scores["real"].get(metric), form)
            rows.append((definition["title"], judge, *with_interval(found, form), real, definition["better"]))
    screen.table(f"{evaluation.run} · suite {evaluation.suite}", SCORE_COLUMNS, rows)
    for text in _verdict_texts(scores):
        screen.prose(text, style="bold")
    screen.warn(*(one["face_note"] for one in scores["subjects"] if "face_note" in one))
    for name in scores["copying"]:
        screen.warn(f"{name}: the images copy the photos: nearer to one than any two photos are to each other.")
    screen.files(Scores=evaluation.scores_file, Report=evaluation.report, Grid=evaluation.grid)


def _verdict_texts(scores: Mapping[str, Any]) -> list[str]:
    from dbcli.workflows.evaluation.verdicts import verdict_texts

    return verdict_texts(scores)


def _form(definition: Mapping[str, str]) -> str:
    """How a score is written: a share in per cent, a cosine to three digits."""
    return ".0%" if definition.get("unit") == "share" else ".3f"


def show_comparisons(screen: Screen, comparisons: Sequence[Comparison]) -> None:
    """A table per suite: a row per score, a column per run and one for each difference from the first."""
    documents = [{"report": one.report, "grid": one.grid, **one.document} for one in comparisons]
    screen.document({"comparisons": documents})
    for one in comparisons:
        _show(screen, one)


def _show(screen: Screen, comparison: Comparison) -> None:
    """Runs as columns, or where a terminal has no room for them all as rows."""
    runs, differences = comparison.document["runs"], comparison.document["differences"]
    metrics, forms = _metrics(), _forms()
    overall = {one["run"]: one["scores"]["overall"] for one in runs}
    scores = [
        (run, {metric: number((found.get(metric) or {}).get("value"), forms[metric]) for metric in metrics})
        for run, found in overall.items()
    ]
    _show_grid(screen, f"suite {comparison.suite}", *_by_run(metrics, scores))
    for is_full in (True, False):
        cells = [
            (one["run"], {metric: _difference(one["scores"].get(metric), forms[metric], is_full) for metric in metrics})
            for one in differences
        ]
        columns, rows = _by_run(metrics, cells)
        if not is_full or screen.fits(columns, rows):
            _show_grid(screen, f"less {runs[0]['run']}", columns, rows)
            break
    if any(found["clear"] for one in differences for found in one["scores"].values()):
        screen.line("* the 95 % interval does not contain zero", style="dim")
    for one in runs:
        for text in _verdict_texts(one["scores"]):
            screen.prose(f"{one['run']}: {text}", style="")
    settings = comparison.document["settings"]
    if settings:
        _show_settings(screen, [one["run"] for one in runs], settings)
    screen.files(Grid=comparison.grid, Report=comparison.report)


def _metrics() -> dict[str, str]:
    """The scores' titles with the direction that is better."""
    from dbcli.workflows.evaluation.evaluate import score_definitions

    found = score_definitions()
    return {name: f"{one['title']} {'↑' if one['better'] == 'higher' else '↓'}" for name, one in found.items()}


def _forms() -> dict[str, str]:
    from dbcli.workflows.evaluation.evaluate import score_definitions

    return {name: _form(one) for name, one in score_definitions().items()}


def _by_run(metrics: Mapping[str, str], runs: Sequence[Numbers]) -> tuple[list[Column], list[tuple[str, ...]]]:
    """Columns and rows of a grid with a column per run, scores that no run has left out."""
    rows = [
        (title, *(found[metric] for _, found in runs))
        for metric, title in metrics.items()
        if any(found[metric] for _, found in runs)
    ]
    return [Column("score"), *(Column(name, right=True) for name, _ in runs)], rows


def _show_grid(screen: Screen, title: str, columns: Sequence[Column], rows: Sequence[tuple[str, ...]]) -> None:
    if not screen.fits(columns, rows):
        runs = [column.title for column in columns[1:]]
        columns = [Column("run", least=12), *(Column(row[0], right=True) for row in rows)]
        rows = list(zip(runs, *(row[1:] for row in rows), strict=True))
    screen.table(title, columns, rows)


def _show_settings(screen: Screen, names: Sequence[str], settings: Mapping[str, Mapping[str, str]]) -> None:
    columns = [Column("setting"), *(Column(name, wraps=True, least=8) for name in names)]
    rows = [(key, *values.values()) for key, values in settings.items()]
    title = "what differs"
    if screen.fits(columns, rows):
        screen.table(title, columns, rows)
        return
    by_key = {key: " · ".join(f"{name}: {value}" for name, value in values.items()) for key, values in settings.items()}
    screen.table(title, (Column("setting"), Column("by run", wraps=True, least=24)), list(by_key.items()))


def _difference(found: Mapping[str, Any] | None, form: str, is_full: bool) -> str:
    """A difference, with its interval where there is room for it; a star where that does not contain zero."""
    if found is None:
        return ""
    shown = is_full and found["low"] is not None
    interval = f" ({found['low']:+{form}} to {found['high']:+{form}})" if shown else ""
    return f"{found['value']:+{form}}{interval}{' *' if found['clear'] else '  '}"


def show_interference(call: Invocation, request: EvaluateRequest, also: Sequence[str], *, is_asked: bool) -> None:
    """Measures a run, or several combined, and prints it.

    Raises UsageError for --with without --run, and for options that are of scores alone.
    """
    from dbcli.workflows.evaluation.interference import measure_interference
    from dbcli.workflows.generation.request import RunSelection

    run = request.run
    if also and not (is_asked and run):
        raise UsageError("--with names runs to combine with --run.", hint="add --interference --run RUN")
    unread = ", ".join(_of_scores_alone(request))
    if unread:
        raise UsageError(
            f"--interference draws prompts of its own or those of --suite, and asks DINO alone: {unread} would do "
            "nothing.",
            hint=f"leave {unread} out, or leave --interference out",
        )
    # How far words that collide keep subjects apart is what is measured.
    selection = RunSelection([run, *also] if run else [], allow_collision=True)
    made = measure_interference(call.layout, selection, request.scoring, call.screen, offline=call.offline)
    call.screen.document(made.report | {"file": made.file, "report": made.page, "heat_map": made.heat_map})
    _show_subjects(call.screen, made.report)
    call.screen.warn(*made.bleeding)
    _show_drift(call.screen, made.report)
    call.screen.files(Numbers=made.file, Report=made.page)


def _of_scores_alone(request: EvaluateRequest) -> Iterator[str]:
    """The options given that nothing but scores reads."""
    scoring = request.scoring
    given = {
        "--prompts": scoring.prompts_file is not None,
        "--dataset": scoring.dataset is not None,
        "--faces": bool(scoring.faces),
        "--keep-identifier": request.keep_identifier,
        "--masked": request.masked,
        "--checkpoint": request.checkpoint is not None,
        "--grid": request.grid,
    }
    return (option for option, is_given in given.items() if is_given)


def _show_subjects(screen: Screen, report: Mapping[str, Any]) -> None:
    nearest = report["nearest"]
    if nearest is None:
        screen.note("One subject has nothing to interfere with; only its class is measured.")
        return
    rows = [
        (
            name,
            *with_interval(one["right"], ".0%"),
            ", ".join(f"{other} {count}" for other, count in one["nearest"].items()),
        )
        for name, one in nearest["subjects"].items()
    ]
    rows.append(("all", *with_interval(nearest["overall"], ".0%"), f"by chance {nearest['chance']:.0%}"))
    columns = (
        Column("asked for", least=12),
        Column("nearest to own photos", right=True),
        Column("95 % interval", drop=1),
        Column("nearest to", least=12, wraps=True),
    )
    screen.table(f"{report['drawn_with']} · do the subjects stay apart?", columns, rows)
    for name, one in nearest["subjects"].items():
        if one["verdict"] == "unknown":
            screen.note(f"{name}: the judge recognises only {one['photos_right']:.0%} of its photos, so it cannot say.")


def _show_drift(screen: Screen, report: Mapping[str, Any]) -> None:
    rows = [
        (
            f"a {noun}",
            _number(one["same_seed"]),
            _number(one["other_seeds"]),
            *(f"{_number(one[score]['before'])} → {_number(one[score]['after'])}" for score in ("pres", "div")),
        )
        for noun, one in report["drift"].items()
    ]
    columns = (
        Column("class", least=12, wraps=True),
        Column("same seed", right=True),
        Column("other seeds", drop=1, right=True),
        Column("PRES ↓", right=True),
        Column("DIV ↑", right=True),
    )
    screen.table("Images of the class, from the base and the run; ↓ lower is better, ↑ higher", columns, rows)


def _number(value: float | None) -> str:
    return number(value, missing="–")
