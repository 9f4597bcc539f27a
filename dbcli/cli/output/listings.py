"""Results in words and tables, and the same as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from dbcli.cli.output.guidance import show_review
from dbcli.cli.terminal.screen import Screen
from dbcli.cli.terminal.tables import Column

if TYPE_CHECKING:
    from dbcli.project.subjects.subject_store import AddedSubject
    from dbcli.workflows.class_images.manage import SetSummary
    from dbcli.workflows.demo import Demonstration
    from dbcli.workflows.evaluation.evaluate import Evaluation
    from dbcli.workflows.generation.generate import Generated
    from dbcli.workflows.sharing.export import Exported
    from dbcli.workflows.subjects.photo_review import PhotoReview

SHOWN_IMAGES = 8


def added_document(added: AddedSubject, advice: Sequence[str]) -> dict[str, object]:
    """A subject that was just brought in, as JSON."""
    return {
        "subject": added.subject.to_plain(),
        "skipped": [{"path": str(one.path), "reason": one.reason, "stray": one.stray} for one in added.skipped],
        "notes": added.notes,
        "advice": list(advice),
    }


def show_added(
    screen: Screen, added: AddedSubject, advice: Sequence[str], review: PhotoReview, next_command: str
) -> None:
    """A subject that was just brought in, in words: what was kept, left out and changed."""
    subject = added.subject
    for line in added.left_out:
        screen.warn(line)
    strays = sum(one.stray for one in added.skipped)
    if strays:
        screen.note(f"{strays} other file{'s' if strays > 1 else ''} passed over.")
    for note in added.notes:
        screen.note(note)
    for line in advice:
        screen.warn(line)
    count = len(subject.photos)
    screen.line(f"Subject {subject.name}: {count} photo{'s' if count != 1 else ''} of a {subject.class_noun}")
    show_review(screen, review)
    screen.line(f"Next: {next_command}", style="dim")


def show_generated(screen: Screen, generated: Generated) -> None:
    """Where the images lie."""
    from dbcli.workflows.generation.generate import generated_document

    screen.document(generated_document(generated))
    count = len(generated.images)
    screen.line(f"Generated {count} image{'' if count == 1 else 's'} with {generated.title}")
    for image in generated.images[:SHOWN_IMAGES]:
        screen.line(f"  {image.path}")
    if count > SHOWN_IMAGES:
        screen.line(f"  … and {count - SHOWN_IMAGES} more in {generated.images[0].path.parent}")
    if generated.grid is not None:
        screen.line(f"Grid: {generated.grid}")


def show_class_image_sets(screen: Screen, sets: Sequence[SetSummary]) -> None:
    """All class images, a line a set."""
    screen.document({"sets": [asdict(one) for one in sets]})
    rows = [
        (
            one.key,
            one.prompt or "own photos",
            one.images,
            f"{one.size_bytes / 1e6:.1f} MB",
            "" if one.fits_base else "no",
        )
        for one in sets
    ]
    if rows:
        columns = (
            "set",
            Column("prompt", wraps=True, least=16),
            Column("images", right=True),
            Column("size", drop=2, right=True),
            Column("fits the base", drop=1),
        )
        screen.table(None, columns, rows)
    else:
        screen.line("No class images yet. A run generates its own, or: dreambooth reg make --class dog")


def show_evaluations(screen: Screen, evaluations: Sequence[Evaluation]) -> None:
    """A table of scores a suite, the photos' own values beside them."""
    screen.document(
        {
            "evaluations": [
                {
                    "scores_file": str(one.scores_file),
                    "report": str(one.report),
                    "grid": None if one.grid is None else str(one.grid),
                    **one.scores,
                }
                for one in evaluations
            ]
        }
    )
    for one in evaluations:
        _show_scores(screen, one)


def _show_scores(screen: Screen, evaluation: Evaluation) -> None:
    from dbcli.workflows.evaluation.evaluate import score_definitions

    scores = evaluation.scores
    rows = []
    for metric, definition in score_definitions().items():
        found = scores["overall"].get(metric)
        if found is None:
            continue
        judge = scores["protocol"]["judges"].get(definition["judge"], {}).get("judge", "")
        real = scores["real"].get(metric)
        rows.append(
            (definition["title"], judge, *_numbers(found), "" if real is None else f"{real:.3f}", definition["better"])
        )
    title = f"{evaluation.run} · suite {evaluation.suite}"
    columns = (
        "score",
        Column("judge", drop=3),
        Column("value", right=True),
        Column("95 % interval", drop=1),
        Column("photos", drop=2, right=True),
        Column("better", drop=4),
    )
    screen.table(title, columns, rows)
    for name in scores["copying"]:
        screen.warn(f"{name}: DINO above the photos' own value; the pictures copy the photos.")
    screen.line(f"Scores: {evaluation.scores_file}")
    screen.line(f"Report: {evaluation.report}")
    if evaluation.grid is not None:
        screen.line(f"Grid: {evaluation.grid}")


def _numbers(found: dict[str, Any]) -> tuple[str, str]:
    value, low, high = (found.get(key) for key in ("value", "low", "high"))
    interval = "" if low is None or high is None else f"{low:.3f} to {high:.3f}"
    return ("" if value is None else f"{value:.3f}"), interval


def show_demo(screen: Screen, shown: Demonstration) -> None:
    """What the demo made, and the three commands a person types next."""
    screen.document(
        {"project": str(shown.project), "run": shown.run, "grid": str(shown.grid), "seconds": shown.seconds}
    )
    if shown.evaluation is not None:
        _show_scores(screen, shown.evaluation)
    seconds = ", ".join(f"{part} {value:.0f} s" for part, value in shown.seconds.items())
    screen.line(f"Done: {seconds}. Look at {shown.grid}", style="bold")
    screen.line(f'Next: cd {shown.project}; dreambooth generate "a sks dog on a wooden table" --grid', style="dim")


def show_export(screen: Screen, made: Exported) -> None:
    """Where an export lies, whose file it is, how well it was proved, and what its receiver has to know."""
    known = made.recipient
    screen.document(
        {
            "run": made.run,
            "to": made.target,
            "path": str(made.path),
            "difference": made.difference,
            "proved_by": made.proved_by,
            "for": known.readers,
            "subjects": [{"name": one.name, "word": one.word, "class": one.class_noun} for one in known.subjects],
            "base": known.base,
            "strength": known.strength,
            "notes": known.notes,
        }
    )
    screen.line(f"Exported {made.run} to {made.path}")
    screen.line(f"For {known.readers}")
    screen.line("Whoever receives it needs:")
    for one in known.subjects:
        screen.line(
            f"  {one.name}: '{one.word} {one.class_noun}' in the prompt (identifier {one.word}, class {one.class_noun})"
        )
    if known.strength is not None:
        screen.line(f"  base {known.base}, strength {known.strength:g}")
    else:
        screen.line(
            f"  base {known.base}" if made.target == "embedding" else f"  base {known.base}, which is in the file"
        )
    screen.line(
        f"Loaded back by {made.proved_by}: largest difference of a pixel {made.difference:.2g} of 2", style="dim"
    )
