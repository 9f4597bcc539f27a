"""One evaluation: images, photos and prompts in, every score with its interval and its definition out.

`score_images` returns plain JSON values. Scores are None where they are not defined (no photos, one image alone).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dbcli.metrics.judges.features_cache import FeatureStore
from dbcli.metrics.judges.judge import Judges
from dbcli.metrics.judges.masking import ClassMask
from dbcli.metrics.pooling import score_cells, score_intervals
from dbcli.metrics.scores import (
    DEFINITIONS,
    closest_pair,
    diversity,
    mean_known,
    mean_matched_cosine,
    mean_pairwise_cosine,
    mean_pairwise_within,
)
from dbcli.metrics.statistics import RESAMPLES, SEED

SCHEMA = 1


@dataclass(frozen=True)
class PromptImages:
    """The images generated for one prompt, and the text they are scored against.

    `template` is the prompt before any subject's words were put in: it is the same for all subjects, and
    tells the statistics which prompts recur. `label` and `task` serve tables and grids.
    """

    prompt: str
    scoring_text: str
    images: tuple[Path, ...]
    template: str = ""
    label: str = ""
    task: str = ""


@dataclass(frozen=True)
class SubjectImages:
    """One subject's photos, its prompts, and images of other members of its class for PRES."""

    name: str
    class_noun: str
    photos: tuple[Path, ...]
    prompts: tuple[PromptImages, ...]
    class_images: tuple[Path, ...] = ()


def score_images(
    subjects: Sequence[SubjectImages],
    judges: Judges,
    *,
    store: FeatureStore | None = None,
    identifier_removed: bool = True,
    mask: ClassMask | None = None,
) -> dict[str, Any]:
    """Every score per prompt, per subject and over all, with 95 % intervals, as JSON values.

    `store` keeps features between calls; `mask` blanks backgrounds of photos and images alike. Raises
    ValueError for two subjects of one name, PhotoError for a file that is no image.
    """
    if len({subject.name for subject in subjects}) != len(subjects):
        raise ValueError("two subjects of one name")
    store = store if store is not None else FeatureStore()
    texts = _text_features(subjects, judges)
    records = [_subject_record(subject, judges, store, mask, texts) for subject in subjects]
    return {
        "schema": SCHEMA,
        "protocol": _protocol(judges, identifier_removed, mask),
        "overall": score_intervals([cell for record in records for cell in score_cells(record)]),
        "real": {metric: mean_known([record["real"][metric] for record in records]) for metric in ("dino", "clip_i")},
        "copying": [record["name"] for record in records if record["copying"]],
        "texts_cut_short": _texts_cut_short(subjects, judges),
        "subjects": records,
    }


def _subject_record(
    subject: SubjectImages,
    judges: Judges,
    store: FeatureStore,
    mask: ClassMask | None,
    texts: Mapping[tuple[str, str], torch.Tensor],
) -> dict[str, Any]:
    paths = [*subject.photos, *(path for prompt in subject.prompts for path in prompt.images)]
    found = store.features(paths, list(judges.parts.values()), mask=mask, noun=subject.class_noun)
    features = dict(zip(judges.parts, found, strict=True))
    photos = {judge: rows[: len(subject.photos)] for judge, rows in features.items()}
    real = {"dino": mean_pairwise_within(photos["dino"]), "clip_i": mean_pairwise_within(photos["clip"])}
    prompts, start = [], len(subject.photos)
    for prompt in subject.prompts:
        images = {judge: rows[start : start + len(prompt.images)] for judge, rows in features.items()}
        start += len(prompt.images)
        scores = _prompt_scores(images, photos, texts, prompt.scoring_text)
        prompts.append(_prompt_record(prompt, scores, real["dino"]))
    pres = _preservation(subject, judges, store, mask, photos["dino"])
    cells = score_cells({"name": subject.name, "prompts": prompts, "scores": {"pres": {"value": pres}}})
    intervals = score_intervals(cells)
    return {
        "name": subject.name,
        "class_noun": subject.class_noun,
        "photos": len(subject.photos),
        "images": sum(len(prompt.images) for prompt in subject.prompts),
        "class_images": len(subject.class_images),
        "scores": intervals,
        "real": real,
        "copying": _is_copying((intervals["dino"] or {}).get("value"), real["dino"]),
        "closest": _closest(subject, features["dino"]),
        "prompts": prompts,
    }


def _prompt_scores(
    images: Mapping[str, torch.Tensor],
    photos: Mapping[str, torch.Tensor],
    texts: Mapping[tuple[str, str], torch.Tensor],
    scoring_text: str,
) -> dict[str, float | None]:
    def against_text(judge: str) -> float | None:
        if judge not in images or len(images[judge]) == 0:
            return None
        return mean_matched_cosine(images[judge], texts[judge, scoring_text].expand(len(images[judge]), -1))

    return {
        "dino": mean_pairwise_cosine(images["dino"], photos["dino"]),
        "clip_i": mean_pairwise_cosine(images["clip"], photos["clip"]),
        "clip_t": against_text("clip"),
        "clip_t_l": against_text("clip_l"),
        "div": diversity(images["dino"]),
    }


def _prompt_record(prompt: PromptImages, scores: Mapping[str, float | None], real: float | None) -> dict[str, Any]:
    return {
        "prompt": prompt.prompt,
        "scoring_text": prompt.scoring_text,
        "template": prompt.template,
        "label": prompt.label or prompt.prompt,
        "task": prompt.task,
        "images": [path.name for path in prompt.images],
        "scores": dict(scores),
        "copying": _is_copying(scores["dino"], real),
    }


def _preservation(
    subject: SubjectImages, judges: Judges, store: FeatureStore, mask: ClassMask | None, photos: torch.Tensor
) -> float | None:
    if not subject.class_images:
        return None
    members = store.features(subject.class_images, [judges.dino], mask=mask, noun=subject.class_noun)[0]
    return mean_pairwise_cosine(members, photos)


def _closest(subject: SubjectImages, features: torch.Tensor) -> dict[str, Any] | None:
    """The image nearest to a photo: where copying would be seen first."""
    count = len(subject.photos)
    pair = closest_pair(features[count:], features[:count])
    if pair is None:
        return None
    images = [path for prompt in subject.prompts for path in prompt.images]
    return {"image": images[pair[0]].name, "photo": subject.photos[pair[1]].name, "dino": pair[2]}


def _is_copying(dino: float | None, real: float | None) -> bool:
    """Images nearer to the photos than the photos are to each other are copies, not quality."""
    return dino is not None and real is not None and dino > real


def _scoring_texts(subjects: Sequence[SubjectImages]) -> list[str]:
    """Every text that is scored, once."""
    return list(dict.fromkeys(prompt.scoring_text for subject in subjects for prompt in subject.prompts))


def _text_features(subjects: Sequence[SubjectImages], judges: Judges) -> dict[tuple[str, str], torch.Tensor]:
    """Each scoring text's feature [D] under each CLIP, every text encoded once."""
    texts = _scoring_texts(subjects)
    return {
        (part, text): row
        for part, judge in judges.parts.items()
        if part != "dino"
        for text, row in zip(texts, judge.encode_texts(texts), strict=True)
    }


def _texts_cut_short(subjects: Sequence[SubjectImages], judges: Judges) -> dict[str, list[str]]:
    """Scoring texts whose end a CLIP never reads: their CLIP-T is that of their beginning."""
    texts = _scoring_texts(subjects)
    return {part: cut for part, judge in judges.parts.items() if (cut := judge.too_long(texts))}


def _protocol(judges: Judges, identifier_removed: bool, mask: ClassMask | None) -> dict[str, Any]:
    return {
        "scores": DEFINITIONS,
        "judges": judges.describe(),
        "scale": "plain cosine in [-1, 1], not multiplied by 2.5 or 100",
        "identifier_removed_from_scoring_text": identifier_removed,
        "mean": "over all pairs of a subject, then over subjects; DIV over prompts, then over subjects",
        "real": "mean cosine over distinct pairs of a subject's own photos",
        "copying": "DINO above the subject's own real-real value",
        "masked": mask.key if mask else None,
        "intervals": {
            "level": 0.95,
            "over": "subjects and prompts (one or two subjects: their prompts; PRES: subjects)",
            "method": "two-way bootstrap, rescaled to the unbiased variance and Student's t",
            "resamples": RESAMPLES,
            "seed": SEED,
        },
    }
