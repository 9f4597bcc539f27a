"""How far the subjects of one model stay apart, and what became of their classes: pure functions of features.

Features are float tensors [N, D] with rows of length 1. An image's likeness to a subject is its mean cosine with all
of that subject's photos, as in DINO (Ruiz et al., CVPR 2023, section 4.1); the nearest subject is the likest one.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch

from dbcli.metrics.scores import diversity, mean_known, mean_matched_cosine, mean_pairwise_cosine, mean_pairwise_within
from dbcli.metrics.statistics import Cell, bounded_interval

Verdict = Literal["apart", "bleeds", "unknown"]
# Prompt template -> features of its images [N, D].
ByPrompt = Mapping[str, torch.Tensor]
LEAST_SHARE = 0.9
RULE = (
    f"A subject bleeds where fewer than {LEAST_SHARE:.0%} of its images are nearest to its own photos. "
    f"Where fewer than {LEAST_SHARE:.0%} of its own photos are nearest to its other photos, the judge cannot tell the "
    "subjects apart, and nothing is said."
)


def likeness_row(images: torch.Tensor, photos: Mapping[str, torch.Tensor]) -> dict[str, float | None]:
    """Mean cosine of some images with each subject's photos, subject by subject."""
    return {name: mean_pairwise_cosine(images, rows) for name, rows in photos.items()}


def photo_row(name: str, photos: Mapping[str, torch.Tensor]) -> dict[str, float | None]:
    """The same for a subject's photos; beside themselves they stand without the pairs of a photo with itself."""
    row = likeness_row(photos[name], photos)
    return row | {name: mean_pairwise_within(photos[name])}


def nearest_subjects(images: torch.Tensor, photos: Mapping[str, torch.Tensor]) -> list[str]:
    """The likest subject of every image; the first in order among equals. Needs a photo of each."""
    likeness = torch.stack([images.double() @ rows.double().mean(dim=0) for rows in photos.values()], dim=1)
    names = list(photos)
    return [names[index] for index in likeness.argmax(dim=1).tolist()]


def nearest_photos(name: str, photos: Mapping[str, torch.Tensor]) -> float | None:
    """The share of a subject's photos that are nearest to its other photos: what the judge can tell at best.

    None for one photo alone.
    """
    own = photos[name]
    if len(own) < 2:
        return None
    right = 0
    for place in range(len(own)):
        others = photos | {name: torch.cat([own[:place], own[place + 1 :]])}  # type: ignore[operator]
        right += nearest_subjects(own[place : place + 1], others)[0] == name
    return right / len(own)


def nearest_report(asked: Mapping[str, ByPrompt], photos: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """How often an image is nearest to the photos of the requested subject, over all and by subject.

    The intervals are over subjects and prompts, for one subject over its prompts. JSON values.
    """
    cells: list[Cell] = []
    subjects: dict[str, Any] = {}
    for name, by_prompt in asked.items():
        counts = dict.fromkeys(photos, 0)
        own: list[Cell] = []
        for prompt, images in by_prompt.items():
            found = nearest_subjects(images, photos)
            for one in found:
                counts[one] += 1
            own.append(Cell(name, prompt, found.count(name) / len(found), float(len(found))))
        cells += own
        best = nearest_photos(name, photos)
        share = bounded_interval(own)
        subjects[name] = {
            "right": share,
            "pictures": sum(counts.values()),
            "nearest": counts,
            "photos_right": best,
            "verdict": verdict(float(share["value"] or 0.0), best),
        }
    return {
        "overall": bounded_interval(cells),
        "chance": 1 / len(photos),
        "subjects": subjects,
        "bleeding": [name for name, one in subjects.items() if one["verdict"] == "bleeds"],
        "least_share": LEAST_SHARE,
        "rule": RULE,
    }


def verdict(share: float, photos_right: float | None) -> Verdict:
    """What a share of right images means, by RULE."""
    if photos_right is not None and photos_right < LEAST_SHARE:
        return "unknown"
    return "bleeds" if share < LEAST_SHARE else "apart"


def class_drift(before: torch.Tensor, after: torch.Tensor, photos: Sequence[torch.Tensor]) -> dict[str, Any]:
    """What became of a class: images of it by the base and by the run, from the same seeds, row by row.

    `same_seed` is the mean cosine of the two images of a seed, 1 where nothing changed; `other_seeds` that of
    the base's images among themselves, which is how alike two images of the class are by chance. PRES (lower is
    better) is the mean over the class's subjects; DIV is 1 - cosine over pairs. JSON values.
    """
    return {
        "pictures": len(before),
        "same_seed": mean_matched_cosine(before, after),
        "other_seeds": mean_pairwise_within(before),
        "pres": {"before": _preservation(before, photos), "after": _preservation(after, photos)},
        "div": {"before": diversity(before), "after": diversity(after)},
    }


def _preservation(members: torch.Tensor, photos: Sequence[torch.Tensor]) -> float | None:
    return mean_known([mean_pairwise_cosine(members, rows) for rows in photos])
