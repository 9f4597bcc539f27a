"""One evaluation: images, photos and prompts in, every score with its interval and its definition out.

`score_images` returns plain JSON values. Scores are None where they are not defined (no photos, one image alone).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dbcli.metrics.faces import scores_of_images, scores_of_photos, without_face
from dbcli.metrics.judges.features_cache import FeatureStore
from dbcli.metrics.judges.judge import Judges
from dbcli.metrics.judges.masking import ClassMask
from dbcli.metrics.pooling import mean_real, score_cells, score_intervals
from dbcli.metrics.recognition import (
    LEAST_SCENES,
    class_drift,
    class_to_tell_from,
    copied,
    identified,
    likeness_beyond_class,
    photos_identified,
    scenes_right,
    share,
)
from dbcli.metrics.scores import (
    DEFINITIONS,
    FACE_DEFINITIONS,
    closest_pair,
    diversity,
    mean_matched_cosine,
    mean_pairwise_cosine,
    mean_pairwise_within,
)
from dbcli.metrics.statistics import RESAMPLES, SEED
from dbcli.metrics.verdict import COPYING_SHARE

SCHEMA = 1


@dataclass(frozen=True)
class PromptImages:
    """The images generated for one prompt, and the text they are scored against.

    `template` is the prompt before any subject's words were put in: it is the same for all subjects, and
    tells the statistics which prompts recur. `label` and `task` serve tables and grids. Where the subject is to look
    otherwise (`keeps_look` False) its likeness is not asked for; `names_scene` says that the text names a place.
    """

    prompt: str
    scoring_text: str
    images: tuple[Path, ...]
    template: str = ""
    label: str = ""
    task: str = ""
    keeps_look: bool = True
    names_scene: bool = False


@dataclass(frozen=True)
class OtherSubject:
    """Another subject of the project, which images must not be taken for."""

    class_noun: str
    photos: tuple[Path, ...]


@dataclass(frozen=True)
class SubjectImages:
    """One subject's photos, its prompts, images of other members of its class, and the project's other subjects.

    `class_before` are images of the class as the base drew them before the run. The faces of one that `is_person` are
    scored too, if there is a judge of them.
    """

    name: str
    class_noun: str
    photos: tuple[Path, ...]
    prompts: tuple[PromptImages, ...]
    class_images: tuple[Path, ...] = ()
    others: tuple[OtherSubject, ...] = ()
    class_before: tuple[Path, ...] = ()
    is_person: bool = False


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
    records = [_subject_record(subject, judges, _Eyes(judges, store, mask), texts) for subject in subjects]
    return {
        "schema": SCHEMA,
        "protocol": _protocol(judges, identifier_removed, mask),
        "overall": score_intervals([cell for record in records for cell in score_cells(record)]),
        "real": mean_real(records),
        "copying": [record["name"] for record in records if record["copying"]],
        "texts_cut_short": _texts_cut_short(subjects, judges),
        "subjects": records,
    }


@dataclass(frozen=True)
class _Eyes:
    """What looks at files: features of them by each judge, backgrounds blanked where a mask is given."""

    judges: Judges
    store: FeatureStore
    mask: ClassMask | None

    def by_part(self, paths: Sequence[Path], noun: str) -> dict[str, torch.Tensor]:
        """Features [N, D] under every judge, by its part in the scores."""
        parts = self.judges.parts
        return dict(
            zip(parts, self.store.features(paths, list(parts.values()), mask=self.mask, noun=noun), strict=True)
        )

    def likeness(self, paths: Sequence[Path], noun: str) -> torch.Tensor:
        """Features [N, D] under the judge of likeness; [0, 0] for no files."""
        return self.store.features(paths, [self.judges.dino], mask=self.mask, noun=noun)[0]


@dataclass(frozen=True)
class _Beside:
    """What a subject's images are held against: its photos by each judge, and under the judge of likeness the images
    of its class and the photos of the project's other subjects, each by themselves."""

    photos: Mapping[str, torch.Tensor]
    members: torch.Tensor
    others: Sequence[torch.Tensor]
    before: torch.Tensor

    @property
    def of_class(self) -> torch.Tensor:
        """The class that the subject is to be told from."""
        return class_to_tell_from(self.before, self.members)


def _beside(subject: SubjectImages, photos: Mapping[str, torch.Tensor], eyes: _Eyes) -> _Beside:
    members = eyes.likeness(subject.class_images, subject.class_noun)
    others = [eyes.likeness(one.photos, one.class_noun) for one in subject.others]
    return _Beside(photos, members, others, eyes.likeness(subject.class_before, subject.class_noun))


def _subject_record(
    subject: SubjectImages, judges: Judges, eyes: _Eyes, texts: Mapping[tuple[str, str], torch.Tensor]
) -> dict[str, Any]:
    features = eyes.by_part(
        [*subject.photos, *(path for prompt in subject.prompts for path in prompt.images)], subject.class_noun
    )
    beside = _beside(subject, {judge: rows[: len(subject.photos)] for judge, rows in features.items()}, eyes)
    scenes = _scenes(subject)
    own = features["dino"][_kept_look(subject)]
    prompts, start = [], len(subject.photos)
    for prompt in subject.prompts:
        images = {judge: rows[start : start + len(prompt.images)] for judge, rows in features.items()}
        start += len(prompt.images)
        scores = _prompt_scores(images, beside, texts, prompt.scoring_text)
        scores |= _recognition(prompt, images, beside, texts, scenes)
        each = [likeness_beyond_class(row[None], beside.members, beside.photos["dino"]) for row in images["dino"]]
        prompts.append(_prompt_record(prompt, scores) | {"beyond_class_by_image": each if prompt.keeps_look else None})
    seen = _faces(subject, eyes)
    if seen is not None:
        prompts = [
            prompt | {"scores": prompt["scores"] | found} for prompt, found in zip(prompts, seen[0], strict=True)
        ]
    pres = mean_pairwise_cosine(beside.members, beside.photos["dino"])
    cells = score_cells({"name": subject.name, "prompts": prompts, "scores": {"pres": {"value": pres}}})
    intervals = score_intervals(cells)
    return {
        "name": subject.name,
        "class_noun": subject.class_noun,
        "photos": len(subject.photos),
        "images": sum(len(prompt.images) for prompt in subject.prompts),
        "class_images": len(subject.class_images),
        "other_subjects": sum(bool(one.photos) for one in subject.others),
        "scenes": len(scenes),
        "scores": intervals,
        "real": _real(beside, pres) | ({} if seen is None else seen[1]),
        **({} if seen is None else {"photos_without_face": seen[2]}),
        "class_drift": class_drift(own, beside.members, beside.before, beside.photos["dino"]),
        "copying": _is_copying((intervals["copies"] or {}).get("value")),
        "closest": _closest(subject, features["dino"]),
        "prompts": prompts,
    }


_Faces = tuple[list[dict[str, float | None]], dict[str, float | None], list[str]]


def _faces(subject: SubjectImages, eyes: _Eyes) -> _Faces | None:
    """The scores of faces of each prompt and of the photos, and the photos without any; None where they do not count.

    Backgrounds are not blanked for them: the judge sees nothing but the face.
    """
    judge = eyes.judges.face
    if judge is None or not subject.is_person:
        return None
    photos = eyes.store.features(subject.photos, [judge])[0]
    scores: list[dict[str, float | None]] = []
    for prompt in subject.prompts:
        asked = prompt.images if prompt.keeps_look else ()
        scores.append(scores_of_images(eyes.store.features(asked, [judge])[0], photos))
    return scores, scores_of_photos(photos), without_face(photos, [path.name for path in subject.photos])


def _kept_look(subject: SubjectImages) -> list[int]:
    """The rows, photos first, of the images that are to look like the subject."""
    flags = [False] * len(subject.photos)
    flags += [prompt.keeps_look for prompt in subject.prompts for _ in prompt.images]
    return [row for row, flag in enumerate(flags) if flag]


def _real(beside: _Beside, pres: float | None) -> dict[str, float | None]:
    """What the photos reach among themselves: the scores that real images of the subject would have."""
    photos = beside.photos
    dino = mean_pairwise_within(photos["dino"])
    return {
        "dino": dino,
        "clip_i": mean_pairwise_within(photos["clip"]),
        "beyond_class": None if dino is None or pres is None else dino - pres,
        "identified": share(photos_identified(photos["dino"], beside.of_class, beside.others)),
    }


def _scenes(subject: SubjectImages) -> list[str]:
    """The texts of the subject's scenes, each once; none where there are too few to choose among."""
    found = list(dict.fromkeys(prompt.scoring_text for prompt in subject.prompts if prompt.names_scene))
    return found if len(found) >= LEAST_SCENES else []


def _prompt_scores(
    images: Mapping[str, torch.Tensor],
    beside: _Beside,
    texts: Mapping[tuple[str, str], torch.Tensor],
    scoring_text: str,
) -> dict[str, float | None]:
    def against_text(judge: str) -> float | None:
        if judge not in images or len(images[judge]) == 0:
            return None
        return mean_matched_cosine(images[judge], texts[judge, scoring_text].expand(len(images[judge]), -1))

    return {
        "dino": mean_pairwise_cosine(images["dino"], beside.photos["dino"]),
        "clip_i": mean_pairwise_cosine(images["clip"], beside.photos["clip"]),
        "clip_t": against_text("clip"),
        "clip_t_l": against_text("clip_l"),
        "div": diversity(images["dino"]),
    }


def _recognition(
    prompt: PromptImages,
    images: Mapping[str, torch.Tensor],
    beside: _Beside,
    texts: Mapping[tuple[str, str], torch.Tensor],
    scenes: Sequence[str],
) -> dict[str, float | None]:
    """Whether a prompt's images show the subject, and its scene; None for what the prompt does not ask for."""
    seen, photos = images["dino"], beside.photos["dino"]
    right = None
    if scenes and prompt.names_scene:
        rows = torch.stack([texts["clip", text] for text in scenes])
        right = scenes_right(images["clip"], rows, [scenes.index(prompt.scoring_text)] * len(prompt.images))
    return {
        "beyond_class": likeness_beyond_class(seen, beside.members, photos) if prompt.keeps_look else None,
        "identified": share(identified(seen, photos, beside.of_class, beside.others)) if prompt.keeps_look else None,
        "scene": share(right),
        "copies": share(copied(seen, photos)),
    }


def _prompt_record(prompt: PromptImages, scores: Mapping[str, float | None]) -> dict[str, Any]:
    return {
        "prompt": prompt.prompt,
        "scoring_text": prompt.scoring_text,
        "template": prompt.template,
        "label": prompt.label or prompt.prompt,
        "task": prompt.task,
        "keeps_look": prompt.keeps_look,
        "names_scene": prompt.names_scene,
        "images": [path.name for path in prompt.images],
        "scores": dict(scores),
        "copying": _is_copying(scores["copies"]),
    }


def _closest(subject: SubjectImages, features: torch.Tensor) -> dict[str, Any] | None:
    """The image nearest to a photo: where copying would be seen first."""
    count = len(subject.photos)
    pair = closest_pair(features[count:], features[:count])
    if pair is None:
        return None
    images = [path for prompt in subject.prompts for path in prompt.images]
    return {"image": images[pair[0]].name, "photo": subject.photos[pair[1]].name, "dino": pair[2]}


def _is_copying(copies: float | None) -> bool:
    return copies is not None and copies >= COPYING_SHARE


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
        "scores": DEFINITIONS if judges.face is None else DEFINITIONS | FACE_DEFINITIONS,
        "judges": judges.describe(),
        "scale": "plain cosine in [-1, 1], not multiplied by 2.5 or 100",
        "identifier_removed_from_scoring_text": identifier_removed,
        "mean": "over all pairs of a subject, then over subjects; DIV over prompts, then over subjects",
        "real": "mean cosine over distinct pairs of a subject's own photos",
        "copying": f"{COPYING_SHARE:.0%} or more of the images are copies: nearer to one photo than any two photos are",
        "masked": mask.key if mask else None,
        "intervals": {
            "level": 0.95,
            "over": "subjects and prompts (one or two subjects: their prompts; PRES: subjects)",
            "method": "two-way bootstrap, rescaled to the unbiased variance and Student's t",
            "resamples": RESAMPLES,
            "seed": SEED,
        },
    }
