"""Which runs know a subject: by its name, and by every name that it had before."""

from collections.abc import Collection, Iterable, Sequence

from dbcli.errors import RunMissing
from dbcli.hints import nearest
from dbcli.project.files.layout import Layout
from dbcli.project.files.names import printable
from dbcli.project.runs.run_store import RunRecord, find_run, list_runs
from dbcli.project.subjects.subject_store import list_subjects

FINISHED = ("finished",)
UNFINISHED = ("interrupted", "failed", "running", "created")


def names_of(layout: Layout, name: str) -> frozenset[str]:
    """Every name that the subject called `name` has or had; the name alone for one that is not here."""
    return next((one.names for one in list_subjects(layout) if name in one.names), frozenset({name}))


def known_names(layout: Layout, runs: Sequence[RunRecord] | None = None) -> list[str]:
    """The subjects of the project, and those that runs alone remember; `runs` are all runs, where they are read."""
    here = list_subjects(layout)
    learnt = [subject.name for run in (list_runs(layout) if runs is None else runs) for subject in run.subjects]
    former = {name for one in here for name in one.formerly}
    return list(dict.fromkeys([*(one.name for one in here), *(name for name in learnt if name not in former)]))


def learnt(record: RunRecord, names: Collection[str]) -> bool:
    """Whether a run knows a subject by one of these names, taught by itself or by a run that it goes on from."""
    return any(subject.name in names for subject in record.subjects)


def newest_first(records: Iterable[RunRecord]) -> list[RunRecord]:
    """Runs in the order in which one is chosen: those made by hand before the cells of a sweep, then the newest."""
    return sorted(records, key=lambda record: (record.work_key is None, record.number), reverse=True)


def runs_knowing(layout: Layout, name: str, states: Collection[str] = FINISHED) -> list[RunRecord]:
    """The runs in one of `states` that know a subject, in the order in which one is chosen."""
    names = names_of(layout, name)
    return newest_first(run for run in list_runs(layout) if run.state in states and learnt(run, names))


def run_meant(layout: Layout, text: str, *, to_resume: bool = False) -> RunRecord:
    """The run meant by "3", "0003-dog" or the name of a subject, which is the newest finished run that learnt it.

    With `to_resume` it is the newest unfinished one; where there is none, the newest of the others. What is no subject
    may be the name of a single run without its number, "lokr" for "0012-lokr". Raises RunMissing with the nearest
    names.
    """
    try:
        return find_run(layout, text)
    except RunMissing:
        wanted = text.strip()
        for states in (UNFINISHED, FINISHED) if to_resume else (FINISHED, UNFINISHED):
            if found := runs_knowing(layout, wanted, states):
                return found[0]
        return _called(layout, wanted)


def _called(layout: Layout, wanted: str) -> RunRecord:
    """The single run of this name without its number; RunMissing where a subject has it, several runs or none."""
    records = list_runs(layout)
    subjects = known_names(layout, records)
    if wanted in {name for one in subjects for name in names_of(layout, one)}:
        raise RunMissing(
            f"No run has learnt the subject '{printable(wanted)}' yet.", hint=f"dreambooth train --subject {wanted}"
        )
    called = [record for record in records if record.name.partition("-")[2] == wanted]
    if len(called) == 1:
        return called[0]
    if called:
        raise RunMissing(
            f"{len(called)} runs are called '{printable(wanted)}': {listed(newest_first(called))}.",
            hint=f"name one by its number, such as {called[-1].number}",
        )
    raise _missing(wanted, records, subjects)


def _missing(wanted: str, records: Sequence[RunRecord], subjects: Sequence[str]) -> RunMissing:
    near = nearest(wanted, [*subjects, *(record.name for record in records)])
    guess = f" Did you mean '{near}'?" if near else ""
    known = ", ".join(record.name for record in records[-5:]) or "none yet"
    return RunMissing(
        f"There is no run '{printable(wanted)}' here.{guess} The newest: {known}.", hint="dreambooth runs list"
    )


def listed(records: Sequence[RunRecord], most: int = 4) -> str:
    """Runs by name in a sentence, the first `most` of them."""
    names = [record.name for record in records[:most]]
    return ", ".join(names) + (f" and {len(records) - most} more" if len(records) > most else "")
