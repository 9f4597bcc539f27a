"""The other subjects of a project, which a subject's images must not be taken for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbcli.project.files.atomic import sha256_of
from dbcli.project.files.layout import Layout
from dbcli.project.subjects.subject_store import list_subjects, photo_paths

if TYPE_CHECKING:
    from dbcli.metrics.protocol import OtherSubject


def other_subjects(layout: Layout, name: str) -> tuple[OtherSubject, ...]:
    """Every subject of the project but the one of this name; one that shares a photo with it is the same thing.

    Photos that are gone or damaged are left out: they are another subject's trouble.
    """
    from dbcli.metrics.protocol import OtherSubject

    known = list_subjects(layout)
    own = next((one for one in known if name in one.names), None)
    hashes = {photo.sha256 for photo in own.photos} if own is not None else set()
    found = []
    for one in known:
        if name in one.names or hashes & {photo.sha256 for photo in one.photos}:
            continue
        pairs = zip(photo_paths(layout, one), one.photos, strict=True)
        files = tuple(path for path, photo in pairs if path.is_file() and sha256_of(path) == photo.sha256)
        if files:
            found.append(OtherSubject(one.class_noun, files))
    return tuple(found)
