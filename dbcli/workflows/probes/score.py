"""The images of one probe, the same at every checkpoint, and what the judges say of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from dbcli.project.files.layout import Layout
from dbcli.project.images.recipes import Recipe
from dbcli.project.prompts.identifiers import render_with, render_without
from dbcli.project.runs.run_store import RunRecord
from dbcli.project.subjects.subject_store import load_subject, photo_paths
from dbcli.workflows.class_images.generate import class_prompt
from dbcli.workflows.class_images.sentences import first_class_template
from dbcli.workflows.images.generated import image_size, in_words, recipes_for, sampling_of, words_of
from dbcli.workflows.progress import Stage
from dbcli.workflows.run_context import RunContext

if TYPE_CHECKING:
    import torch
    from PIL import Image

    from dbcli.diffusion.bases.base import Base
    from dbcli.metrics.judges.judge import Judges

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
    """What a probe measured; lists hold a value per image, in the set's order."""

    fidelities: list[float]
    editabilities: list[float]
    preservation: float | None
    copying: bool


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
    """The judges with the photos' features, ready for every probe of a run."""

    def __init__(self, layout: Layout, record: RunRecord, judges: Judges) -> None:
        from dbcli.metrics.judges.features_cache import FeatureStore
        from dbcli.metrics.scores import mean_pairwise_within

        self.judges = judges
        store = FeatureStore(layout.cache_dir / "features")
        self._photos: dict[str, torch.Tensor] = {}
        for subject in record.shown:
            files: list[Path] = photo_paths(layout, load_subject(layout, subject.name))
            self._photos[subject.name] = store.features(files, [judges.dino])[0]
        self.real = {name: mean_pairwise_within(rows) for name, rows in self._photos.items()}

    def score(self, items: Sequence[Item], images: Sequence[Image.Image]) -> Found:
        """Fidelity: DINO of a subject's images to its photos. Editability: CLIP-T of those in scenes.

        Preservation is DINO of the class's images to the photos, lower is better. Copying: a subject whose images
        are nearer to its photos than these are to each other.
        """
        from dbcli.metrics.scores import mean_matched_cosine, mean_pairwise_cosine

        seen = self.judges.dino.encode_images(list(images))
        scenes = [index for index, item in enumerate(items) if item.role == "scene"]
        sampled_images = self.judges.clip.encode_images([images[index] for index in scenes])
        texts = self.judges.clip.encode_texts([items[index].scoring_text for index in scenes])
        near = [
            mean_pairwise_cosine(seen[index : index + 1], self._photos[item.subject]) or 0.0
            for index, item in enumerate(items)
        ]
        own = {name: [near[i] for i, item in enumerate(items) if item.subject == name and item.role != "class"]
               for name in self._photos}  # fmt: skip
        members = [near[index] for index, item in enumerate(items) if item.role == "class"]
        copying = any(
            (real := self.real[name]) is not None and sum(values) / len(values) > real for name, values in own.items()
        )
        return Found(
            [value for values in own.values() for value in values],
            [mean_matched_cosine(sampled_images[i : i + 1], texts[i : i + 1]) or 0.0 for i in range(len(scenes))],
            sum(members) / len(members) if members else None,
            copying,
        )
