"""The pictures of one probe, the same at every checkpoint, and what the judges say of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from dbcli.diffusion.distributed import SINGLE, ProcessGroup
from dbcli.project.files.layout import Layout
from dbcli.project.images.recipes import Recipe
from dbcli.project.prompts.identifiers import render_with, render_without
from dbcli.project.runs.run_store import RunRecord
from dbcli.project.settings.profile_settings import DrawSettings, Profile
from dbcli.project.subjects.subject_store import load_subject, photo_paths
from dbcli.workflows.class_images.draw import class_prompt
from dbcli.workflows.images.generated import image_size, in_words, recipes_for, sampling_of, words_of

if TYPE_CHECKING:
    import torch
    from PIL import Image

    from dbcli.diffusion.bases.base import Base
    from dbcli.metrics.judges.judge import Judges

# Away from the seeds that pictures and evaluations begin with: what a checkpoint is chosen by must not be what it is
# judged by later.
SEED_OFFSET = 1_000_000
Role = Literal["plain", "scene", "class"]


@dataclass(frozen=True)
class Item:
    """One picture of the set: whose it is, what it is for, and the text that CLIP reads."""

    subject: str
    role: Role
    recipe: Recipe
    scoring_text: str


@dataclass(frozen=True)
class Found:
    """What a probe measured; lists hold a value a picture, in the set's order."""

    fidelities: list[float]
    editabilities: list[float]
    preservation: float | None
    copying: bool


def probe_items(record: RunRecord, profile: Profile, base: Base, seeds: int) -> list[Item]:
    """The set of a run: each subject as it was trained and in every scene, and its class, with fixed seeds."""
    probe = profile.probe
    how = {"sampler": probe.sampler, "steps": probe.steps, "eta": 0.0, "compile": False}
    settings = in_words(profile.draw.model_copy(update=how), words_of(record))
    size = image_size(base, None, None, profile.images.resolution)
    items: list[Item] = []
    for subject in record.shown:
        words = {subject.name: words_of(record)[subject.name]}
        wanted: list[tuple[Role, str]] = [("plain", profile.images.template)]
        wanted += [("scene", template) for template in probe.prompts]
        wanted.append(("class", class_prompt(profile.prior.template, subject.class_noun)))
        for role, template in wanted:
            drawn = render_with(template, words)
            for recipe in _recipes(drawn, settings, seeds, profile.train.seed, size, base, record):
                items.append(Item(subject.name, role, recipe, render_without(template, words)))
    return items


def _recipes(
    prompt: str,
    settings: DrawSettings,
    count: int,
    seed: int,
    size: tuple[int, int],
    base: Base,
    record: RunRecord,
) -> list[Recipe]:
    many = settings.model_copy(update={"count": count})
    return recipes_for([prompt], many, seed=seed + SEED_OFFSET, size_px=size, base=base, record=record)


def draw_items(
    base: Base,
    items: Sequence[Item],
    *,
    batch_size: int,
    on_image: Callable[[int], None],
    should_stop: Callable[[], bool],
    on_note: Callable[[str], None] = lambda line: None,
    group: ProcessGroup = SINGLE,
) -> list[Image.Image]:
    """The pictures of a set in its order; one that two subjects of a class share is drawn once. Raises Interrupted."""
    from dbcli.diffusion.images import to_image
    from dbcli.diffusion.sampling.sample import SampleRequest, sample_images

    orders = [SampleRequest(item.recipe.prompt, item.recipe.seed, item.recipe.negative) for item in items]
    distinct = list(dict.fromkeys(orders))
    how = sampling_of(items[0].recipe, batch_size)
    images: dict[SampleRequest, Image.Image] = {}
    own = group.split(range(len(distinct)), batch_size)
    with group.together():
        for index, pixels in sample_images(base, distinct, how, wanted=own, should_stop=should_stop, on_note=on_note):
            images[distinct[index]] = to_image(pixels)
            on_image(len(images))
    for part in group.gather(images):
        images |= part
    return [images[order] for order in orders]


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
        """Fidelity: DINO of a subject's pictures to its photos. Editability: CLIP-T of those in scenes.

        Preservation is DINO of the class's pictures to the photos, lower is better. Copying: a subject whose pictures
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
