"""Whether images show the subject itself, and the scene that was asked for: pure functions of features.

A cosine alone says little to a person, and much of it every dog shares with every other. So the subject's images are
held against its class's, against the photos of other subjects, and against the photos' own likeness to each other.
Features are float tensors [N, D] whose rows have length 1; computed in float64. What cannot be said is None.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from dbcli.metrics.scores import mean_pairwise_cosine, mean_pairwise_within

# Fewer scenes than these, and chance alone is right too often.
LEAST_SCENES = 3
# Nearer to the photos than this share of the class's images: all of them where they are five or fewer.
CLASS_QUANTILE = 0.8


def likeness_beyond_class(images: torch.Tensor, class_images: torch.Tensor, photos: torch.Tensor) -> float | None:
    """How much nearer a subject's images are to its photos than its class's images are: a difference in [-2, 2].

    Both are mean cosines over all pairs, as DINO is in Ruiz et al. (CVPR 2023, section 4.1). What the class shares with
    the subject (being a dog, being drawn) is in both and falls away; 0 means that the word has taught nothing.
    """
    likeness, of_class = mean_pairwise_cosine(images, photos), mean_pairwise_cosine(class_images, photos)
    return None if likeness is None or of_class is None else likeness - of_class


def class_to_tell_from(before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
    """The images of a class that a subject's are to be told from: the base's, or the run's where there are none.

    A class that training has drawn towards the subject would hide what was learnt: the nearer it came, the fewer of
    the subject's images would be nearer still. How far it came is `class_drift`.
    """
    return before if len(before) else after


def class_drift(
    images: torch.Tensor, after: torch.Tensor, before: torch.Tensor, photos: torch.Tensor
) -> dict[str, float | None] | None:
    """How far the subject has come towards its photos from where the base drew its class, and the class with it.

    `moved` is the share of the subject's images that are nearer to the photos than the base's class was (`before`, as
    `identified` has it), `class_moved` that of the class's images (`after`); `reach` is the subject's way as a share of
    the whole way from there to the photos among themselves; `share` is the part of it that the class's images have
    gone too: 0 where they are no nearer to the photos than before, 1 where they are as near as the subject's, None
    where the subject came no nearer. None where images of the class before or after lack, or the photos are no nearer
    to each other than the class was.
    """
    began, of_class, of_subject = (mean_pairwise_cosine(rows, photos) for rows in (before, after, images))
    real = mean_pairwise_within(photos)
    if began is None or of_class is None or of_subject is None or real is None or real <= began:
        return None
    way = of_subject - began
    return {
        "moved": share(identified(images, photos, before, [])),
        "class_moved": share(identified(after, photos, before, [])),
        "reach": way / (real - began),
        "share": (of_class - began) / way if way > 0 else None,
    }


def identified(
    images: torch.Tensor, photos: torch.Tensor, class_images: torch.Tensor, others: Sequence[torch.Tensor]
) -> list[bool] | None:
    """For each image whether it shows the subject rather than its class or another subject, by mean cosine.

    It has to be nearer to the subject's photos than the class's images are, and nearer to them than to the photos of
    each of `others`. So drawn is held against drawn and photo against photo: a drawn image is nearer to any drawn one
    than to a photo, whatever they show. Of more than five images of the class one in five may be nearer, so that odd
    ones do not decide; about one in five would pass by chance. A tie is not identified. None without photos, or where
    there is nothing to be taken for.
    """
    rivals = [rows for rows in others if len(rows)]
    if len(photos) == 0 or not (len(class_images) or rivals):
        return None
    if len(images) == 0:
        return []
    own = _mean_cosines(images, photos)
    bars = [_mean_cosines(images, rows) for rows in rivals]
    if len(class_images):
        of_class = torch.quantile(_mean_cosines(class_images, photos), CLASS_QUANTILE, interpolation="higher")
        bars.append(of_class.expand(len(images)))
    return [bool(flag) for flag in own > torch.stack(bars).amax(dim=0)]


def photos_identified(
    photos: torch.Tensor, class_images: torch.Tensor, others: Sequence[torch.Tensor]
) -> list[bool] | None:
    """The same for each photo, held against the subject's other photos: what the judge can tell at best.

    None for fewer than two photos, or where there is nothing to be taken for.
    """
    if len(photos) < 2:
        return None
    found: list[bool] = []
    for place in range(len(photos)):
        rest = torch.cat([photos[:place], photos[place + 1 :]])
        found += identified(photos[place : place + 1], rest, class_images, others) or []
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
