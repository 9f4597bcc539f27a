"""The images of one probe, the same at every checkpoint, and what the judges say of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from dbcli.project.files.layout import Layout
from dbcli.project.images.recipes import Recipe
from dbcli.project.prompts.identifiers import render_with, render_without
from dbcli.project.runs.run_store import RunRecord
from dbcli.project.subjects.subject_store import load_subject, photo_paths
from dbcli.workflows.class_images.generate import class_prompt
from dbcli.workflows.class_images.sentences import first_class_template
from dbcli.workflows.evaluation.others import other_subjects
from dbcli.workflows.evaluation.verdicts import class_images_before
from dbcli.workflows.images.generated import image_size, in_words, recipes_for, sampling_of, words_of
from dbcli.workflows.progress import Stage
from dbcli.workflows.run_context import RunContext
from dbcli.workflows.setup.effective_settings import default_judge, judge_sources

if TYPE_CHECKING:
    import torch
    from PIL import Image

    from dbcli.diffusion.bases.base import Base
    from dbcli.metrics.judges.judge import Judges
    from dbcli.metrics.verdict import Counts

# Away from the seeds that images and evaluations begin with: what a checkpoint is chosen by must not be what it is
# judged by later.
SEED_OFFSET = 1_000_000
Role = Literal["plain", "scene", "class"]


@dataclass(frozen=True)
class Item:
    """One image of the set: whose it is, what it is for, and the text that CLIP reads."""

    subject: str
    role: Role
    recipe: Recipe
    scoring_text: str


@dataclass(frozen=True)
class Found:
    """What a probe measured; lists hold a value per image, in the set's order. `counts` are each subject's.

    `images` are the places in the set of those that `fidelities` are of.
    """

    fidelities: list[float]
    editabilities: list[float]
    preservation: float | None = None
    beyond_class: float | None = None
    identified: float | None = None
    scene: float | None = None
    copies: float | None = None
    copying: bool = False
    counts: Mapping[str, Counts] = field(default_factory=dict)
    images: list[int] = field(default_factory=list)


def probe_items(run: RunContext, base: Base, seeds: int) -> list[Item]:
    """The set of a run: each subject as it was trained and in every scene, and its class, with fixed seeds."""
    record, profile, probe = run.record, run.profile, run.profile.probe
    changed = {"sampler": probe.sampler, "steps": probe.steps, "eta": 0.0, "compile": False, "count": seeds}
    settings = in_words(profile.draw.model_copy(update=changed), words_of(record))
    size, seed = image_size(base, None, None, profile.images.resolution), profile.train.seed + SEED_OFFSET
    items: list[Item] = []
    for subject in record.shown:
        words = {subject.name: words_of(record)[subject.name]}
        wanted: list[tuple[Role, str]] = [("plain", profile.images.templates[0])]
        wanted += [("scene", template) for template in probe.prompts]
        wanted.append(("class", class_prompt(first_class_template(profile), subject.class_noun)))
        for role, template in wanted:
            prompt, scoring_text = render_with(template, words), render_without(template, words)
            recipes = recipes_for([prompt], settings, seed=seed, size_px=size, base=base, record=record)
            items += [Item(subject.name, role, recipe, scoring_text) for recipe in recipes]
    return items


def generate_items(run: RunContext, base: Base, items: Sequence[Item], stage: Stage, title: str) -> list[Image.Image]:
    """The images of a set in its order; one that two subjects of a class share is made once. Raises Interrupted."""
    from dbcli.diffusion.images import to_image
    from dbcli.diffusion.sampling.sample import SampleRequest, sample_images

    requests = [SampleRequest(item.recipe.prompt, item.recipe.seed, item.recipe.negative) for item in items]
    distinct, batch_size = list(dict.fromkeys(requests)), run.profile.draw.batch_size
    settings, own = sampling_of(items[0].recipe, batch_size), run.group.split(range(len(distinct)), batch_size)
    images: dict[SampleRequest, Image.Image] = {}
    with run.group.together():
        for index, pixels in sample_images(
            base, distinct, settings, wanted=own, should_stop=run.stop, on_note=stage.tell
        ):
            images[distinct[index]] = to_image(pixels)
            stage.tell(f"{title}: image {len(images)}")
    for part in run.group.gather(images):
        images |= part
    return [images[request] for request in requests]


class Panel:
    """The judges with features of the photos, and of the project's other subjects, ready for every probe of a run."""

    def __init__(self, layout: Layout, record: RunRecord, judges: Judges) -> None:
        from dbcli.metrics.judges.features_cache import FeatureStore
        from dbcli.metrics.scores import mean_pairwise_within

        self.judges, self._layout, self._record = judges, layout, record
        self._store = FeatureStore(layout.features_dir)
        self._photos: dict[str, torch.Tensor] = {}
        self._others: dict[str, list[torch.Tensor]] = {}
        for subject in record.shown:
            self._photos[subject.name] = self._features(photo_paths(layout, load_subject(layout, subject.name)))
            others = other_subjects(layout, subject.name)
            self._others[subject.name] = [self._features(one.photos) for one in others]
        self.real = {name: mean_pairwise_within(rows) for name, rows in self._photos.items()}

    def _features(self, files: Sequence[Path]) -> torch.Tensor:
        return self._store.features(files, [self.judges.dino])[0]

    def score(self, items: Sequence[Item], images: Sequence[Image.Image]) -> Found:
        """Fidelity: DINO of a subject's images to its photos. Editability: CLIP-T of those in scenes.

        Preservation is DINO of the class's images to the photos, lower is better. The others are an evaluation's, over
        all subjects' images.
        """
        from dbcli.metrics.recognition import share
        from dbcli.metrics.scores import mean_known, mean_matched_cosine, mean_pairwise_cosine
        from dbcli.metrics.verdict import COPYING_SHARE

        seen = self.judges.dino.encode_images(list(images))
        scenes = [index for index, item in enumerate(items) if item.role == "scene"]
        placed = self.judges.clip.encode_images([images[index] for index in scenes])
        texts = self.judges.clip.encode_texts([items[index].scoring_text for index in scenes])
        near = [
            mean_pairwise_cosine(seen[index : index + 1], self._photos[item.subject]) or 0.0
            for index, item in enumerate(items)
        ]
        own = {name: [near[i] for i in _rows(items, name, "plain", "scene")] for name in self._photos}
        members = [near[index] for index, item in enumerate(items) if item.role == "class"]
        in_place = _scenes_right(placed, texts, [items[index] for index in scenes])
        parts = [self._recognised(name, items, seen, in_place.get(name, [])) for name in self._photos]
        return Found(
            [value for values in own.values() for value in values],
            [mean_matched_cosine(placed[i : i + 1], texts[i : i + 1]) or 0.0 for i in range(len(scenes))],
            sum(members) / len(members) if members else None,
            mean_known([part.beyond_class for part in parts]),
            share([flag for part in parts for flag in part.identified]),
            share([flag for part in parts for flag in part.in_place]),
            share([flag for part in parts for flag in part.copies]),
            any((share(part.copies) or 0.0) >= COPYING_SHARE for part in parts),
            {name: part.counts() for name, part in zip(self._photos, parts, strict=True) if part.identified},
            [index for name in self._photos for index in _rows(items, name, "plain", "scene")],
        )

    def _recognised(
        self, name: str, items: Sequence[Item], seen: torch.Tensor, in_place: Sequence[bool]
    ) -> _Recognised:
        from dbcli.metrics.recognition import (
            class_drift,
            class_to_tell_from,
            copied,
            identified,
            likeness_beyond_class,
        )
        from dbcli.metrics.scores import mean_pairwise_cosine

        photos, own = self._photos[name], seen[_rows(items, name, "plain", "scene")]
        members, real = seen[_rows(items, name, "class")], self.real[name]
        noun = next(subject.class_noun for subject in self._record.shown if subject.name == name)
        before = self._features(class_images_before(self._layout, self._record, noun))
        pres = mean_pairwise_cosine(members, photos)
        return _Recognised(
            likeness_beyond_class(own, members, photos),
            identified(own, photos, class_to_tell_from(before, members), self._others[name]) or [],
            list(in_place),
            copied(own, photos) or [],
            class_drift(own, members, before, photos) or {},
            None if real is None or pres is None else real - pres,
        )


def open_panel(run: RunContext) -> Panel:
    """The panel of a run by the judges its settings name. They see a few images: on the CPU, as a GPU has the run.

    Raises JudgeMissing where they are not on this machine.
    """
    from dbcli.metrics.judges.loading import load_judges

    judge = run.profile.probe.judge
    name, sources = default_judge(run.layout) if judge == "auto" else judge, judge_sources(run.layout)
    # Never fetched here: a training that begins with a download of judges is not what was requested.
    return Panel(run.layout, run.record, load_judges(name, sources=sources, offline=True))


@dataclass(frozen=True)
class _Recognised:
    """What is said of one subject's images, the lists image by image, and how far beyond the class its photos are."""

    beyond_class: float | None
    identified: list[bool]
    in_place: list[bool]
    copies: list[bool]
    drift: Mapping[str, float | None]
    photos_beyond: float | None

    def counts(self) -> Counts:
        """What a verdict rests on."""
        from dbcli.metrics.recognition import share
        from dbcli.metrics.verdict import Counts

        has_gain = self.beyond_class is not None and self.photos_beyond is not None and self.photos_beyond > 0
        return Counts(
            len(self.identified),
            sum(self.identified),
            len(self.in_place),
            sum(self.in_place),
            self.beyond_class / self.photos_beyond if has_gain else None,  # type: ignore[operator]  # has_gain says so
            self.drift.get("moved"),
            self.drift.get("share"),
            share(self.copies),
            self.drift.get("reach"),
            self.drift.get("class_moved"),
        )


def _rows(items: Sequence[Item], subject: str, *roles: Role) -> list[int]:
    return [index for index, item in enumerate(items) if item.subject == subject and item.role in roles]


def _scenes_right(placed: torch.Tensor, texts: torch.Tensor, items: Sequence[Item]) -> dict[str, list[bool]]:
    """By subject, for each of its images in a scene whether its own is the nearest of the subject's scenes."""
    from dbcli.metrics.recognition import scenes_right

    found: dict[str, list[bool]] = {}
    for subject in dict.fromkeys(item.subject for item in items):
        rows = _rows(items, subject, "scene")
        wanted = [items[index].scoring_text for index in rows]
        once = list(dict.fromkeys(wanted))
        own = texts[[rows[wanted.index(text)] for text in once]]
        found[subject] = scenes_right(placed[rows], own, [once.index(text) for text in wanted]) or []
    return found
