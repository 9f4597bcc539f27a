"""Whether images show the subject itself, and the scene that was asked for: pure functions of features.

A cosine alone says little to a person, and much of it every dog shares with every other. So the subject's images are
held against its class's, against the photos of other subjects, and against the photos' own likeness to each other.
Features are float tensors [N, D] whose rows have length 1; computed in float64. What cannot be said is None.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from dbcli.metrics.scores import mean_pairwise_cosine

# Fewer scenes than these, and chance alone is right too often.
LEAST_SCENES = 3
# From this share of copies on a prompt, a subject or a checkpoint is said to copy its photos.
COPYING_SHARE = 0.5


def likeness_beyond_class(images: torch.Tensor, class_images: torch.Tensor, photos: torch.Tensor) -> float | None:
    """How much nearer a subject's images are to its photos than its class's images are: a difference in [-2, 2].

    Both are mean cosines over all pairs, as DINO is in Ruiz et al. (CVPR 2023, section 4.1). What the class shares with
    the subject (being a dog, being drawn) is in both and falls away; 0 means that the word has taught nothing.
    """
    likeness, of_class = mean_pairwise_cosine(images, photos), mean_pairwise_cosine(class_images, photos)
    return None if likeness is None or of_class is None else likeness - of_class


def identified(images: torch.Tensor, photos: torch.Tensor, rivals: Sequence[torch.Tensor]) -> list[bool] | None:
    """For each image whether it is nearer to the subject's photos than to any of `rivals`, by mean cosine.

    Rivals are the images of its class, and the photos of each other subject. A tie is not identified. The mean over a
    subject's photos tells soft images apart better than the nearest photo does. None without photos or rivals.
    """
    known = [rows for rows in rivals if len(rows)]
    if len(photos) == 0 or not known:
        return None
    if len(images) == 0:
        return []
    own, best = _mean_cosines(images, photos), torch.stack([_mean_cosines(images, rows) for rows in known]).amax(dim=0)
    return [bool(flag) for flag in own > best]


def photos_identified(photos: torch.Tensor, rivals: Sequence[torch.Tensor]) -> list[bool] | None:
    """The same for each photo, held against the subject's other photos: what the judge can tell at best.

    None for fewer than two photos, or without rivals.
    """
    if len(photos) < 2:
        return None
    found: list[bool] = []
    for place in range(len(photos)):
        others = torch.cat([photos[:place], photos[place + 1 :]])
        found += identified(photos[place : place + 1], others, rivals) or []
    return found or None


def scenes_right(images: torch.Tensor, texts: torch.Tensor, asked: Sequence[int]) -> list[bool] | None:
    """For each image whether the text it was asked by is the nearest of all the suite's scenes.

    `texts` [S, D] are the scenes' texts, each once; `asked` is each image's row of them. None for fewer than
    LEAST_SCENES scenes. Raises ValueError unless there is one row asked for each image.
    """
    if len(asked) != len(images):
        raise ValueError(f"{len(images)} images, but {len(asked)} scenes asked for")
    if len(texts) < LEAST_SCENES:
        return None
    if len(images) == 0:
        return []
    nearest = (images.double() @ texts.double().T).argmax(dim=1)
    return [found == row for found, row in zip(nearest.tolist(), asked, strict=True)]


def copied(images: torch.Tensor, photos: torch.Tensor) -> list[bool] | None:
    """For each image whether it copies a photo: it is nearer to one than any two of the photos are to each other.

    The subject from another side is as far from each photo as the photos are from one another; only the photo itself
    is nearer. None for fewer than two photos.
    """
    if len(photos) < 2:
        return None
    nearest_pair = _nearest_other(photos).max()
    return [bool(flag) for flag in _nearest(images, photos) > nearest_pair]


def share(flags: Sequence[bool] | None) -> float | None:
    """The share that is true, in [0, 1]; None where there is nothing to count."""
    return sum(flags) / len(flags) if flags else None


def _mean_cosines(rows: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """Each row's mean cosine with all of `others`, float64 [N]."""
    return rows.double() @ others.double().mean(dim=0)


def _nearest(rows: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """Each row's highest cosine with any of `others`, float64 [N]."""
    if len(rows) == 0:
        return torch.zeros(0, dtype=torch.float64)
    return (rows.double() @ others.double().T).amax(dim=1)


def _nearest_other(rows: torch.Tensor) -> torch.Tensor:
    """Each row's highest cosine with any other row, float64 [N]."""
    cosines = rows.double() @ rows.double().T
    return cosines.fill_diagonal_(-2.0).amax(dim=1)
