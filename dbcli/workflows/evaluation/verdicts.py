"""Verdicts in words on a run's subjects, and what they need to know of its classes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dbcli.errors import DataError
from dbcli.project.class_images.class_image_sets import open_class_image_set
from dbcli.project.files.layout import Layout
from dbcli.project.runs.run_store import RunRecord

# As many are drawn of the class, by the run; of the base's own there are more at hand, so that no odd one decides.
CLASS_IMAGES, CLASS_IMAGES_BEFORE = 8, 16


def class_images_before(layout: Layout, record: RunRecord, class_noun: str) -> tuple[Path, ...]:
    """Images of a class as the base drew it for the run's prior; none where it had none, or photos of the class."""
    for found in record.prior.get("sets") or ():
        try:
            images = open_class_image_set(layout, str(found["key"]))
            if images.class_noun == class_noun and images.own_count is None:
                return tuple(images.images(CLASS_IMAGES_BEFORE))
        except DataError:
            continue
    return ()


def with_verdicts(scores: Mapping[str, Any], record: RunRecord, step: int | None = None) -> dict[str, Any]:
    """Scores whose subjects carry a verdict: what was learnt, as a state, in a sentence and in few words."""
    from dbcli.metrics.verdict import counts_of, verdict_of

    subjects = []
    for subject in scores["subjects"]:
        counts = counts_of(subject)
        steps = (step or record.result_step) or None
        found = counts and verdict_of(subject["name"], subject["class_noun"], counts, steps=steps)
        subjects.append({**subject, "verdict": found.to_plain() if found else None})
    return {**scores, "subjects": subjects}


def verdict_texts(scores: Mapping[str, Any]) -> list[str]:
    """The verdicts of an evaluation in full, a subject each; none of one that was made without them."""
    return [found["text"] for subject in scores["subjects"] if (found := subject.get("verdict"))]
