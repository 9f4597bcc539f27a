"""What there is to say of runs that were trained before."""

from __future__ import annotations

from dbcli.errors import Refused
from dbcli.project import interference_records
from dbcli.project import runs as store
from dbcli.project.layout import Layout
from dbcli.project.runs import RunRecord

ANY_STATE = ("created", "running", "finished", "interrupted", "failed")


def all_runs(layout: Layout) -> tuple[list[RunRecord], list[str]]:
    """Every run whose record can be read, oldest first, and a line for each that is damaged."""
    return store.list_runs(layout), store.damaged_runs(layout)


def one_run(layout: Layout, run: str | None) -> RunRecord:
    """The run meant, the newest of any state if none is named."""
    return store.find_run(layout, run) if run else store.newest_run(layout, ANY_STATE)


def remove(layout: Layout, name: str) -> None:
    """Deletes a run; Refused while something writes into it, or while an unfinished run still needs its weights."""
    needs = [one.name for one in store.list_runs(layout) if one.parent == name and one.state != "finished"]
    if needs:
        raise Refused(
            f"{needs[0]} goes on from {name} and is not finished: without {name} it cannot be resumed.",
            hint=f"dreambooth train --resume {needs[0]}, or remove that one first",
        )
    store.remove_run(layout, name)


def bleeding(layout: Layout, name: str) -> list[str]:
    """A line for every subject of a run that went to another one when its interference was last measured."""
    return interference_records.bleeding(layout, name)
