"""One evaluation: pictures, photos and prompts in, every score with its interval and its definition out.

`score_images` returns plain JSON values. Scores are None where they are not defined (no photos, one picture
alone).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dbcli.metrics.judges.encoders import ImageEncoder, Judges
from dbcli.metrics.judges.features_cache import FeatureStore, Mask
from dbcli.metrics.scores import (
    closest_pair,
    diversity,
    mean_matched_cosine,
    mean_pairwise_cosine,
    mean_pairwise_within,
)
from dbcli.metrics.statistics import Cell, bootstrap_interval

SCHEMA = 1
# What each score is, once, for the record and for the tables. Order is the order of columns.
DEFINITIONS: dict[str, dict[str, str]] = {
    "dino": {
        "title": "DINO", "judge": "dino", "better": "higher",
        "pairing": "every generated image with every photo of its subject",
    },
    "clip_i": {
        "title": "CLIP-I", "judge": "clip", "better": "higher",
        "pairing": "every generated image with every photo of its subject",
    },
    "clip_t": {
        "title": "CLIP-T", "judge": "clip", "better": "higher",
        "pairing": "every generated image with the text of its own prompt",
    },
    "clip_t_l": {
        "title": "CLIP-T-L", "judge": "clip_l", "better": "higher",
        "pairing": "every generated image with the text of its own prompt",
    },
    "pres": {
        "title": "PRES", "judge": "dino", "better": "lower",
        "pairing": "every image of a random member of the class, drawn by the tuned model, with every photo",
    },
    "div": {
        "title": "DIV", "judge": "dino", "better": "higher",
        "pairing": "1 - cosine over distinct pairs of images of one subject and prompt; not LPIPS, so not "
        "comparable with published DIV",
    },
}  # fmt: skip
_PER_PROMPT = ("dino", "clip_i", "clip_t", "clip_t_l", "div")


@dataclass(frozen=True)
class PromptImages:
    """The pictures drawn for one prompt, and the text they are scored against.

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
    """One subject's photos, its drawn prompts, and pictures of other members of its class for PRES."""

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
    mask: Mask | None = None,
    seed: int = 0,
    resamples: int = 2000,
) -> dict[str, Any]:
    """Every score per prompt, per subject and over all, with 95 % intervals, as JSON values.

    `store` keeps features between calls; `mask` blanks backgrounds of photos and pictures alike. Raises
    ValueError for two subjects of one name, PhotoError for a file that is no picture.
    """
    if len({subject.name for subject in subjects}) != len(subjects):
        raise ValueError("two subjects of one name")
    store = store if store is not None else FeatureStore()
    texts = _text_features(subjects, judges)
    records, cells = [], _Cells(seed, resamples)
    for subject in subjects:
        records.append(_subject_record(subject, judges, store, mask, texts, cells))
    return {
        "schema": SCHEMA,
        "protocol": _protocol(judges, identifier_removed, mask, seed, resamples),
        "overall": {metric: cells.interval(metric) for metric in DEFINITIONS},
        "real": {metric: _mean([record["real"][metric] for record in records]) for metric in ("dino", "clip_i")},
        "copying": [record["name"] for record in records if record["copying"]],
        "texts_cut_short": _texts_cut_short(subjects, judges),
        "subjects": records,
    }


class _Cells:
    """Scores per subject and prompt, gathered for the intervals."""

    def __init__(self, seed: int, resamples: int) -> None:
        self.seed, self.resamples = seed, resamples
        self.by_metric: dict[str, list[Cell]] = {metric: [] for metric in DEFINITIONS}

    def add(self, metric: str, subject: str, prompt: str, value: float | None, weight: float) -> None:
        if value is not None:
            self.by_metric[metric].append(Cell(subject, prompt, value, weight))

    def interval(self, metric: str, subject: str | None = None) -> dict[str, float | None] | None:
        """Mean and interval over all subjects, or over one subject's prompts."""
        cells = [cell for cell in self.by_metric[metric] if subject is None or cell.subject == subject]
        if not cells:
            return None
        found = bootstrap_interval(cells, seed=self.seed, resamples=self.resamples)
        # Few subjects give wide intervals; no score lies outside what its formula allows.
        least, most = (0.0, 2.0) if metric == "div" else (-1.0, 1.0)
        low = None if found.low is None else max(found.low, least)
        high = None if found.high is None else min(found.high, most)
        return {"value": found.value, "low": low, "high": high}


def _subject_record(
    subject: SubjectImages,
    judges: Judges,
    store: FeatureStore,
    mask: Mask | None,
    texts: Mapping[tuple[str, str], torch.Tensor],
    cells: _Cells,
) -> dict[str, Any]:
    encoders: dict[str, ImageEncoder] = {"dino": judges.dino, "clip": judges.clip}
    if judges.clip_l is not None:
        encoders["clip_l"] = judges.clip_l
    paths = [*subject.photos, *(path for prompt in subject.prompts for path in prompt.images)]
    found = store.features(paths, list(encoders.values()), mask=mask, noun=subject.class_noun)
    features = dict(zip(encoders, found, strict=True))
    photos = {judge: rows[: len(subject.photos)] for judge, rows in features.items()}
    real = {"dino": mean_pairwise_within(photos["dino"]), "clip_i": mean_pairwise_within(photos["clip"])}
    prompts, start = [], len(subject.photos)
    keys = _prompt_keys(subject)
    for number, prompt in enumerate(subject.prompts):
        images = {judge: rows[start : start + len(prompt.images)] for judge, rows in features.items()}
        start += len(prompt.images)
        scores = _prompt_scores(images, photos, texts, prompt.scoring_text)
        for metric in _PER_PROMPT:
            weight = 1.0 if metric == "div" else float(len(prompt.images))
            cells.add(metric, subject.name, keys[number], scores[metric], weight)
        prompts.append(_prompt_record(prompt, scores, real["dino"]))
    cells.add("pres", subject.name, "class", _preservation(subject, judges, store, mask, photos["dino"]), 1.0)
    scores_of_subject = {metric: cells.interval(metric, subject.name) for metric in DEFINITIONS}
    return {
        "name": subject.name,
        "class_noun": subject.class_noun,
        "photos": len(subject.photos),
        "images": sum(len(prompt.images) for prompt in subject.prompts),
        "class_images": len(subject.class_images),
        "scores": scores_of_subject,
        "real": real,
        "copying": _is_copying((scores_of_subject["dino"] or {}).get("value"), real["dino"]),
        "closest": _closest(subject, features["dino"]),
        "prompts": prompts,
    }


def _prompt_keys(subject: SubjectImages) -> list[str]:
    """One name per prompt, the same for all subjects; a prompt that two suites share is two prompts."""
    keys: list[str] = []
    for prompt in subject.prompts:
        key = prompt.template or prompt.scoring_text
        keys.append(f"{key}\n{sum(found.rpartition(chr(10))[0] == key for found in keys)}")
    return keys


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
    subject: SubjectImages, judges: Judges, store: FeatureStore, mask: Mask | None, photos: torch.Tensor
) -> float | None:
    if not subject.class_images:
        return None
    members = store.features(subject.class_images, [judges.dino], mask=mask, noun=subject.class_noun)[0]
    return mean_pairwise_cosine(members, photos)


def _closest(subject: SubjectImages, features: torch.Tensor) -> dict[str, Any] | None:
    """The picture nearest to a photo: where copying would be seen first."""
    count = len(subject.photos)
    pair = closest_pair(features[count:], features[:count])
    if pair is None:
        return None
    images = [path for prompt in subject.prompts for path in prompt.images]
    return {"image": images[pair[0]].name, "photo": subject.photos[pair[1]].name, "dino": pair[2]}


def _is_copying(dino: float | None, real: float | None) -> bool:
    """Pictures nearer to the photos than the photos are to each other are copies, not quality."""
    return dino is not None and real is not None and dino > real


def _text_features(subjects: Sequence[SubjectImages], judges: Judges) -> dict[tuple[str, str], torch.Tensor]:
    """Each scoring text's feature [D] under each CLIP, every text encoded once."""
    wanted = list(dict.fromkeys(prompt.scoring_text for subject in subjects for prompt in subject.prompts))
    found: dict[tuple[str, str], torch.Tensor] = {}
    for judge, encoder in (("clip", judges.clip), ("clip_l", judges.clip_l)):
        if encoder is not None:
            rows = encoder.encode_texts(wanted)
            found |= {(judge, text): row for text, row in zip(wanted, rows, strict=True)}
    return found


def _texts_cut_short(subjects: Sequence[SubjectImages], judges: Judges) -> dict[str, list[str]]:
    """Scoring texts whose end a CLIP never reads: their CLIP-T is that of their beginning."""
    texts = list(dict.fromkeys(prompt.scoring_text for subject in subjects for prompt in subject.prompts))
    parts = {"clip": judges.clip, "clip_l": judges.clip_l}
    return {part: cut for part, judge in parts.items() if judge is not None and (cut := judge.too_long(texts))}


def _protocol(judges: Judges, identifier_removed: bool, mask: Mask | None, seed: int, resamples: int) -> dict[str, Any]:
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
            "resamples": resamples,
            "seed": seed,
        },
    }


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
