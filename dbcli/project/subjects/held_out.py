"""Photos of a subject that a run keeps back: it is not taught with them, and its loss on them is measured."""

from collections.abc import Sequence

from dbcli.counts import counted
from dbcli.errors import ConfigError
from dbcli.project.subjects.subject_record import Subject


def held_out_places(held_out: int | Sequence[int], photos: int) -> list[int]:
    """Return the places, from 0, of the photos that `images.held_out` keeps back: the last ones, or those numbered."""
    if isinstance(held_out, int):
        return list(range(max(0, photos - held_out), photos))
    return sorted({number - 1 for number in held_out})


def check_held_out(subjects: Sequence[Subject], held_out: int | Sequence[int]) -> None:
    """Raise ConfigError where a subject has no photo of a number, or none would be left to teach it with."""
    for subject in subjects:
        count = len(subject.photos)
        if not count:  # a sweep's dry run makes subjects up
            continue
        places = held_out_places(held_out, count)
        missing = [place + 1 for place in places if place >= count]
        if missing:
            raise ConfigError(
                f"images.held_out: '{subject.name}' has {counted(count, 'photo')}, none with the number {missing[0]}.",
                hint=f"subjects/{subject.name}/photos holds them, numbered as its names sort",
            )
        if places and len(places) >= count:
            raise ConfigError(
                f"images.held_out keeps back {counted(len(places), 'photo')}, but '{subject.name}' has {count}: "
                "none would be left to teach it with.",
                hint="--set images.held_out=1" if count > 1 else "--set images.held_out=0",
            )
