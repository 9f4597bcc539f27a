"""What there is to say of runs that were trained before."""

from collections.abc import Sequence
from dataclasses import dataclass

from dbcli.errors import Refused
from dbcli.project.files.layout import Layout
from dbcli.project.runs.checkpoints import checkpoint_steps
from dbcli.project.runs.run_store import RunRecord, list_runs, newest_run, read_runs, remove_run, run_named
from dbcli.project.runs.score_files import RunScores, comparable, run_scores
from dbcli.project.runs.score_files import bleeding as bleeding
from dbcli.project.subjects.known_runs import FINISHED, UNFINISHED, run_meant
from dbcli.workflows.runs.differences import distinguishing


def all_runs(layout: Layout) -> tuple[list[RunRecord], list[str]]:
    """Every run whose record can be read, oldest first, and a line for each that is damaged."""
    return read_runs(layout)


@dataclass(frozen=True)
class RunOverview:
    """A run among others: its record, what sets it apart from them, and the scores to set beside theirs."""

    record: RunRecord
    differs: list[str]
    scores: RunScores | None


def overview(layout: Layout, records: Sequence[RunRecord]) -> list[RunOverview]:
    """Runs as a list tells of them; their scores are of the suite and judges that most of them were measured by."""
    scores = comparable(run_scores(layout, [record.name for record in records]))
    return [RunOverview(*one) for one in zip(records, distinguishing(records), scores, strict=True)]


def scores_of(layout: Layout, name: str) -> list[RunScores]:
    """Everything that was measured of a run, a suite each."""
    return run_scores(layout, [name])[0]


def kept_steps(layout: Layout, name: str) -> list[int]:
    """The steps whose checkpoints a run still has, oldest first."""
    return checkpoint_steps(layout, name)


def one_run(layout: Layout, run: str | None) -> RunRecord:
    """The run meant by its number, name or subject, the newest of any state if none is named."""
    return run_meant(layout, run) if run else newest_run(layout, (*FINISHED, *UNFINISHED))


def exact_name(layout: Layout, run: str) -> str:
    """The name of the run meant by its number or name, even one whose record is damaged; a subject may mean several."""
    return run_named(layout, run)


def remove(layout: Layout, name: str) -> None:
    """Deletes a run; Refused while something writes into it, or while an unfinished run still needs its weights."""
    needs = [one.name for one in list_runs(layout) if one.parent == name and one.state != "finished"]
    if needs:
        raise Refused(
            f"{needs[0]} continues {name} and is not finished: without {name} it cannot be resumed.",
            hint=f"dreambooth train --resume {needs[0]}, or remove that one first",
        )
    remove_run(layout, name)
