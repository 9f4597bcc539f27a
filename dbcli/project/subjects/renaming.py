"""Giving a subject another name: its photos and words stay, and runs go on knowing it by the name they learnt."""

from dbcli.errors import Refused, SubjectError
from dbcli.project.files.atomic import commit_folder
from dbcli.project.files.layout import Layout
from dbcli.project.files.locks import hold
from dbcli.project.files.names import printable
from dbcli.project.files.records import load_record
from dbcli.project.files.yaml_files import write_yaml
from dbcli.project.runs.run_store import list_runs
from dbcli.project.subjects.photo_notes import captions_in_files, write_captions
from dbcli.project.subjects.subject_record import Subject
from dbcli.project.subjects.subject_store import LOCK_WAIT_SECONDS, check_new_name, give_up_name, load_subject


def rename_subject(layout: Layout, old: str, new: str) -> Subject:
    """Rename a subject and return its record; cut short, the same call ends what it began.

    Captions that say {old} say {new} afterwards. Raises SubjectError for a subject that is not there, Refused for a
    name that is taken, has a meaning of its own in templates, or stands for another subject in a run.
    """
    with hold(layout.project_lock, "the project's subjects", wait_seconds=LOCK_WAIT_SECONDS):
        subject = _begun(layout, old, new)
        if subject.name == new:
            raise Refused(f"The subject is called '{new}' already.")
        check_new_name(layout, new, renamed=subject)
        folder, before = layout.subject_dir(subject.name), subject.name
        _rewrite_captions(layout, subject, before, new)
        learnt = {one.name for run in list_runs(layout) for one in run.subjects}
        # A name that no run remembers is free again for somebody else.
        subject.formerly = sorted((subject.names - {new}) & learnt)
        subject.name = new
        give_up_name(layout, new)
        write_yaml(layout.subject_file(before), subject.to_plain())
        commit_folder(folder, layout.subject_dir(new))
    return subject


def in_words_of(caption: str | None, old: str, new: str) -> str | None:
    """A caption that calls its subject {old}, calling it {new}."""
    return None if caption is None else caption.replace(f"{{{old}}}", f"{{{new}}}")


def _begun(layout: Layout, old: str, new: str) -> Subject:
    """The subject to rename; one whose record has the new name already still lies in its old folder."""
    path = layout.subject_file(old)
    if path.is_file():
        found = load_record(Subject, path, f"record of the subject '{old}'", SubjectError)
        if found.name not in (old, new):
            raise SubjectError(f"{path} is the record of '{printable(found.name)}', not of '{old}'.")
        found.name = old
        return found
    return load_subject(layout, old)


def _rewrite_captions(layout: Layout, subject: Subject, old: str, new: str) -> None:
    captions = [in_words_of(caption, old, new) for caption in captions_in_files(layout, subject)]
    write_captions(layout, subject, captions)
    for entry in subject.photos:
        entry.caption = in_words_of(entry.caption, old, new)
