"""Scores of faces, as pure functions of descriptors.

Descriptors are float tensors [N, D], a row of zeros where an image has no face. dlib's recogniser was trained so that
two photos of one person lie within a distance of 0.6 and those of two persons further apart (of LFW's pairs 99.38 %,
as its author reports). FACE is 1 - distance: higher is nearer, as for the cosines beside it, 1 is the
same picture, and the threshold stands at 0.4. Computed in float64. What cannot be said is None.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from dbcli.metrics.scores import mean_known

# 1 - 0.6, dlib's distance within which two faces are the same person's.
SAME_PERSON = 0.4


def face_likeness(images: torch.Tensor, photos: torch.Tensor) -> list[float | None]:
    """Each image's mean of 1 - distance to the photos that have a face; None where it or all of those have none."""
    known = photos[_has_face(photos)]
    if len(known) == 0:
        return [None] * len(images)
    return [
        float((1 - (known.double() - row.double()).norm(dim=1)).mean()) if found else None
        for row, found in zip(images, _has_face(images).tolist(), strict=True)
    ]


def likeness_among_photos(photos: torch.Tensor) -> list[float | None]:
    """The same of each photo against the others."""
    rows = range(len(photos))
    return [face_likeness(photos[row][None], photos[[one for one in rows if one != row]])[0] for row in rows]


def scores_of_images(images: torch.Tensor, photos: torch.Tensor) -> dict[str, float | None]:
    """FACE, the share of images with a face, and the share that are the same person as the photos.

    An image without a face has no part in the first; it lowers the second, and is not the same person in the third.
    Where no photo has a face only the second can be said.
    """
    return _scores(images, face_likeness(images, photos), is_comparable=bool(_has_face(photos).any()))


def scores_of_photos(photos: torch.Tensor) -> dict[str, float | None]:
    """What the photos reach, each against the others; likeness needs two with a face."""
    return _scores(photos, likeness_among_photos(photos), is_comparable=int(_has_face(photos).sum()) > 1)


def _scores(rows: torch.Tensor, likeness: Sequence[float | None], *, is_comparable: bool) -> dict[str, float | None]:
    same = [value is not None and value >= SAME_PERSON for value in likeness]
    return {
        "face": mean_known(likeness),
        "face_found": _share(_has_face(rows).tolist()),
        "same_person": _share(same) if is_comparable else None,
    }


def without_face(photos: torch.Tensor, names: Sequence[str]) -> list[str]:
    """The names of the photos in which no face was found."""
    return [name for name, found in zip(names, _has_face(photos).tolist(), strict=True) if not found]


def _share(flags: Sequence[bool]) -> float | None:
    return sum(flags) / len(flags) if flags else None


def _has_face(rows: torch.Tensor) -> torch.Tensor:
    """bool [N]."""
    return rows.abs().sum(dim=1) > 0 if rows.ndim == 2 and rows.shape[1] else torch.zeros(len(rows), dtype=torch.bool)
