"""The scores, as pure functions of L2-normalised features.

Every function takes float tensors of shape [N, D] whose rows have length 1, computes in float64 and returns a plain
float: a cosine in [-1, 1], unscaled. A score that is not defined (no images, one photo alone) is None. Definitions:
Ruiz et al., DreamBooth (CVPR 2023), section 4.1; what the paper leaves open is said at each function.
"""

import math
from collections.abc import Sequence

import torch

from dbcli.shares import SHARES

_WITH_PHOTOS = "every generated image with every photo of its subject"
_WITH_TEXT = "every generated image with the text of its own prompt"
_OF_CLASS = "every image of a random member of the class, drawn by the tuned model, with every photo"
_BEYOND_CLASS = "DINO of the prompts that keep the subject's look, less PRES"
_IDENTIFIED = (
    "the share of images, of the prompts that keep the subject's look, nearer to its photos than the images of its "
    "class are (four in five), and than to the photos of any other subject of the project"
)
_SCENE = "the share of images nearest to the text of their own scene among all of the suite's, three or more"
_COPIES = "the share of images nearer to one photo than any two photos are to each other"
_FACE = (
    "1 - distance of the largest face of every image that has one, of the prompts that keep the subject's look, to the "
    "largest face of every photo that has one"
)
_FACE_FOUND = "the share of images, of the prompts that keep the subject's look, in which a face is found"
_SAME_PERSON = (
    "the share of those images whose own FACE is 0.4 or more: a mean distance to the photos within dlib's 0.6; one "
    "without a face is none of them"
)
_AMONG_THEMSELVES = (
    "1 - cosine over distinct pairs of images of one subject and prompt; "
    "not LPIPS, so not comparable with published DIV"
)


def _unit(metric: str) -> str:
    return "share" if metric in SHARES else "cosine"


# What each score is, once, for the record and for the tables. Order is the order of columns.
DEFINITIONS: dict[str, dict[str, str]] = {
    name: {"title": title, "judge": judge, "better": better, "pairing": pairing, "unit": _unit(name)}
    for name, title, judge, better, pairing in (
        ("dino", "DINO", "dino", "higher", _WITH_PHOTOS),
        ("clip_i", "CLIP-I", "clip", "higher", _WITH_PHOTOS),
        ("clip_t", "CLIP-T", "clip", "higher", _WITH_TEXT),
        ("clip_t_l", "CLIP-T-L", "clip_l", "higher", _WITH_TEXT),
        ("beyond_class", "beyond class", "dino", "higher", _BEYOND_CLASS),
        ("identified", "identified", "dino", "higher", _IDENTIFIED),
        ("scene", "scene", "clip", "higher", _SCENE),
        ("copies", "copies", "dino", "lower", _COPIES),
        ("pres", "PRES", "dino", "lower", _OF_CLASS),
        ("div", "DIV", "dino", "higher", _AMONG_THEMSELVES),
    )
}
# Scores of faces, known only of subjects that are people, where the judge of faces is installed.
FACE_DEFINITIONS: dict[str, dict[str, str]] = {
    name: {"title": title, "judge": "face", "better": "higher", "pairing": pairing, "unit": unit}
    for name, title, pairing, unit in (
        ("face", "FACE", _FACE, "1 - distance"),
        ("face_found", "face found", _FACE_FOUND, "share"),
        ("same_person", "same person", _SAME_PERSON, "share"),
    )
}
ALL_DEFINITIONS = DEFINITIONS | FACE_DEFINITIONS
_COSINE = (-1.0, 1.0)
# Between what values a score can lie, where that is not a cosine's range.
RANGES = {"div": (0.0, 2.0), "beyond_class": (-2.0, 2.0), "face": (-math.inf, 1.0)} | {
    metric: (0.0, 1.0) for metric in SHARES
}


def range_of(metric: str) -> tuple[float, float]:
    """The least and the most that a score can be."""
    return RANGES.get(metric, _COSINE)


def _cosines(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Cosines of all pairs, float64 [N, M]."""
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise ValueError(f"features must be [N, D] and [M, D], found {tuple(a.shape)} and {tuple(b.shape)}")
    return a.double() @ b.double().T


def mean_pairwise_cosine(a: torch.Tensor, b: torch.Tensor) -> float | None:
    """Mean cosine over all N x M pairs: DINO and CLIP-I (generated, photos) and PRES (class members, photos)."""
    if len(a) == 0 or len(b) == 0:
        return None
    return float(_cosines(a, b).mean())


def mean_pairwise_within(a: torch.Tensor) -> float | None:
    """Mean cosine over the N (N - 1) / 2 pairs of distinct rows: the real-real value of a subject's photos.

    None for fewer than two rows. A row is never compared with itself, or few photos would look alike by
    arithmetic alone.
    """
    count = len(a)
    if count < 2:
        return None
    cosines = _cosines(a, a)
    return float((cosines.sum() - cosines.diagonal().sum()) / (count * (count - 1)))


def mean_matched_cosine(images: torch.Tensor, texts: torch.Tensor) -> float | None:
    """Mean cosine of row i of `images` with row i of `texts`: CLIP-T. Both [N, D].

    Raises ValueError when the two differ in length: a shifted list of prompts must never pass silently.
    """
    if images.shape != texts.shape:
        raise ValueError(f"one text feature per image, found {tuple(images.shape)} and {tuple(texts.shape)}")
    if len(images) == 0:
        return None
    return float((images.double() * texts.double()).sum(dim=1).mean())


def diversity(a: torch.Tensor) -> float | None:
    """1 - mean cosine over distinct pairs, in [0, 2], higher is more diverse: DIV.

    The paper takes LPIPS. For unit vectors 1 - cosine is half the squared distance LPIPS sums per position, here on one
    global feature of the named encoder and without LPIPS' learnt weights; the two scales do not compare.
    """
    within = mean_pairwise_within(a)
    return None if within is None else 1.0 - within


def closest_pair(a: torch.Tensor, b: torch.Tensor) -> tuple[int, int, float] | None:
    """The row of `a` and the row of `b` with the highest cosine, and that cosine; the first pair among equals."""
    if len(a) == 0 or len(b) == 0:
        return None
    cosines = _cosines(a, b)
    row, column = divmod(int(cosines.argmax()), cosines.shape[1])
    return row, column, float(cosines[row, column])


def mean_known(values: Sequence[float | None]) -> float | None:
    """The mean of the values that are there; None where none is."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
