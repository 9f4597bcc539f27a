"""Which of a run's images is shown to others: the one with the highest likeness beyond the class, and its recipe."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dbcli.errors import DataError
from dbcli.project.files.layout import Layout
from dbcli.project.files.records import json_or_nothing
from dbcli.project.images.recipes import Recipe, read_recipe
from dbcli.project.prompts.identifiers import render_with
from dbcli.project.runs.probe_files import load_probes, probe_image
from dbcli.project.runs.run_store import RunRecord
from dbcli.project.runs.score_files import MAX_SCORES_BYTES, is_of_result, judges_key
from dbcli.project.settings.profile_settings import Profile
from dbcli.workflows.images.generated import image_size, in_words, recipes_for, words_of

if TYPE_CHECKING:
    from dbcli.diffusion.bases.base import Base


@dataclass(frozen=True)
class BestImage:
    """A recipe and where it comes from, in words; `likeness` is beyond the class, None where no image was scored."""

    recipe: Recipe
    source: str
    likeness: float | None = None


@dataclass(frozen=True)
class _Scored:
    path: Path
    likeness: float


def best_image(layout: Layout, record: RunRecord, profile: Profile, base: Base) -> BestImage:
    """The recipe of the run's image with the highest likeness beyond the class.

    Images of the newest evaluation, and of others by the same judges, come first, then those of the probe of the
    checkpoint that became the result. Where there is none, or its file is gone, it is the run's own settings with
    the prompt that `dreambooth` proposes. `base` may be on the meta device.
    """
    for scored, source in ((_evaluated(layout, record), "evaluation"), (_probed(layout, record), "probe")):
        for one in sorted(scored, key=lambda one: -one.likeness):
            try:
                recipe = read_recipe(one.path)
            except DataError:
                continue
            where = f"{layout.shown(one.path)}, the image of its {source} with the highest likeness beyond the class"
            return BestImage(recipe, where, one.likeness)
    return BestImage(_usual(record, profile, base), "the run's own settings: no image of it was scored yet")


def _evaluated(layout: Layout, record: RunRecord) -> list[_Scored]:
    """The images of the run's result that judges have scored, those of the newest scores' judges."""
    folder = layout.evals_dir(record.name)
    files = sorted(folder.glob("*/scores.json"), key=lambda one: one.stat().st_mtime) if folder.is_dir() else []
    found: list[_Scored] = []
    wanted: str | None = None
    for file in reversed(files):
        try:
            scores = json_or_nothing(file, MAX_SCORES_BYTES)
            protocol = scores["protocol"]
            if not is_of_result(scores):
                continue
            judged_by = judges_key(protocol["judges"])
            wanted = wanted or judged_by
            found += _images_of(scores, file.parent / "images") if judged_by == wanted else []
        except (KeyError, TypeError, AttributeError, ValueError):
            continue
    return found


def _images_of(scores: dict[str, object], folder: Path) -> Iterator[_Scored]:
    for subject in scores["subjects"]:  # type: ignore[attr-defined]
        for prompt in subject["prompts"]:
            each = prompt.get("beyond_class_by_image")
            if each is None and prompt["scores"].get("beyond_class") is not None:
                # Older scores have the prompt's mean alone.
                each = [prompt["scores"]["beyond_class"]]
            for name, value in zip(prompt["images"], each or [], strict=False):
                yield _Scored(folder / Path(name).name, float(value))


def _probed(layout: Layout, record: RunRecord) -> list[_Scored]:
    """The images of the probe of the result; those of a record that does not say which they are are left out."""
    try:
        probes = load_probes(layout, record.name)
    except DataError:
        return []
    entries = [one for one in probes.probes if one.step == record.result_step] if probes is not None else []
    return [
        _Scored(probe_image(layout, record.name, entry.step, index), value - (entry.preservation or 0.0))
        for entry in entries
        for index, value in zip(entry.images, entry.fidelities, strict=False)
    ]


def _usual(record: RunRecord, profile: Profile, base: Base) -> Recipe:
    words = words_of(record)
    name = next(iter(words), None)
    prompt = "a photo" if name is None else render_with(f"a {{{name}}} in space", words)
    settings = in_words(profile.draw.model_copy(update={"count": 1}), words)
    size = image_size(base, None, None, profile.images.resolution)
    return recipes_for([prompt], settings, seed=profile.train.seed, size_px=size, base=base, record=record)[0]
