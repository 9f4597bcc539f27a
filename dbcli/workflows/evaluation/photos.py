"""The photos that images are compared with: those that the run learnt, and unchanged."""

from collections.abc import Iterable

from dbcli.errors import SubjectError
from dbcli.project.files.layout import Layout
from dbcli.project.runs.run_store import RunRecord, RunSubject
from dbcli.project.subjects.subject_store import load_subject, verify_photos
from dbcli.workflows.images.grids import subject_of
from dbcli.workflows.progress import Progress


def check_photos(layout: Layout, records: Iterable[RunRecord], progress: Progress) -> None:
    """Raises SubjectError for photos that are gone or were changed, before anything is loaded.

    Warns of a subject that is scored without photos, for the one of its name has others now.
    """
    for record in records:
        for learnt in record.subjects:
            subject = subject_of(layout, learnt)
            if subject is not None and subject.photos:
                verify_photos(layout, subject)
            elif subject is None and _is_named(layout, learnt):
                progress.warn(
                    f"'{learnt.name}' has other photos now than those that {record.name} learnt: "
                    "its images are compared with none."
                )


def _is_named(layout: Layout, learnt: RunSubject) -> bool:
    try:
        load_subject(layout, learnt.name)
    except SubjectError:
        return False
    return True
