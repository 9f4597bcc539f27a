"""Whether faces are scored, and what is said of them in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dbcli.hints import installing, quoted
from dbcli.project.files.layout import Layout
from dbcli.project.files.names import printable
from dbcli.workflows.progress import Progress
from dbcli.workflows.setup.effective_settings import judge_sources

if TYPE_CHECKING:
    from dbcli.metrics.judges.judge import Judges

# Photos that are named; the others are counted.
MOST_NAMED = 5


def has_faces(class_noun: str, asked: bool | None) -> bool:
    """Whether the faces of a subject of this class are to be scored: as asked, else those of people."""
    from dbcli.metrics.suites import is_person

    return is_person(class_noun) if asked is None else asked


def faces_at_hand(layout: Layout) -> bool:
    """Whether what the judge of faces needs is installed. Loads nothing."""
    from dbcli.metrics.judges.faces import PACKAGES, missing_packages

    missing = missing_packages()
    return not missing or ("face" in judge_sources(layout) and PACKAGES[0] not in missing)


def with_faces(
    judges: Judges, layout: Layout, class_nouns: Sequence[str], asked: bool | None, progress: Progress
) -> Judges:
    """The judges, with that of faces where a class has them and it is installed; a line where it is not.

    Raises JudgeMissing where it was asked for and is not there.
    """
    from dbcli.metrics.judges.faces import load_faces, missing_packages

    people = [noun for noun in class_nouns if has_faces(noun, asked)]
    if not people:
        return judges
    if asked is None and not faces_at_hand(layout):
        progress.note(
            f"DINO does not know faces: for a {printable(people[0])}, {installing(*missing_packages())} (100 MB) "
            "adds a judge that does (--no-faces: without)."
        )
        return judges
    return replace(judges, face=load_faces(judge_sources(layout).get("face")))


def with_face_notes(scores: dict[str, Any]) -> dict[str, Any]:
    """Scores in which a subject has a `face_note`, a sentence, where no face was found in some of its photos."""
    subjects = [
        {**one, "face_note": _without_face(one, without)} if (without := one.get("photos_without_face")) else one
        for one in scores["subjects"]
    ]
    return {**scores, "subjects": subjects}


def _without_face(subject: Mapping[str, Any], without: Sequence[str]) -> str:
    name, noun = printable(subject["name"]), printable(subject["class_noun"])
    if len(without) == subject["photos"]:
        again = f"dreambooth subjects remove {name}; dreambooth add-subject {name} --class {quoted(noun)} PHOTO..."
        return (
            f"{name}: no face was found in any of the {subject['photos']} photos, so FACE cannot say whether the "
            "images show the same person. It takes photos from the front, the face a tenth of the longer side or more: "
            f"{again}"
        )
    named = ", ".join(map(printable, without[:MOST_NAMED]))
    others = f" and {len(without) - MOST_NAMED} more" if len(without) > MOST_NAMED else ""
    return f"{name}: no face was found in {named}{others}; FACE rests on the other photos."
