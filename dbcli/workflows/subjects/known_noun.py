"""Whether the embedded base knows the class noun of a subject, and which of its own to take instead."""

from __future__ import annotations

from dbcli.hints import command
from dbcli.project.files.layout import Layout
from dbcli.project.files.names import printable
from dbcli.project.settings.project_settings import load_settings
from dbcli.project.subjects.subject_record import Subject
from dbcli.workflows.setup.embedded_words import embedded_words


def noun_advice(layout: Layout, subject: Subject) -> list[str]:
    """A line where the project's base is the embedded one and was never taught the class noun; else nothing."""
    words = embedded_words()
    if not load_settings(layout).is_embedded or words.knows_noun(subject.class_noun):
        return []
    noun = words.near_noun(subject.class_noun)
    way = command("dreambooth", "subjects", "set", subject.name, "--class", noun or "NOUN")
    return [
        f"tiny does not know '{printable(subject.class_noun)}'; it knows {', '.join(words.nouns)}: "
        f"take {'the nearest of them' if noun is None else f'--class {noun}'} ({way})."
    ]
