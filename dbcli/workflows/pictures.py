"""Drawing into a folder: every PNG carries its whole recipe and is named by a hash and its index, never by a prompt."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dbcli import __version__
from dbcli.project.identifiers import Words, render_with
from dbcli.project.layout import Layout
from dbcli.project.profile_settings import DrawSettings, Profile
from dbcli.project.prompt_reading import slips
from dbcli.project.recipes import Recipe, save_png
from dbcli.project.runs import RunRecord
from dbcli.project.subjects import list_subjects
from dbcli.workflows.picture_writing import PictureWriter
from dbcli.workflows.progress import Progress
from dbcli.workflows.several import dealt, together

if TYPE_CHECKING:
    from dbcli.diffusion.bases import Base
    from dbcli.diffusion.drawing import DrawSettings as How

# Among a recipe's extras: the step of the checkpoint that drew it.
CHECKPOINT_KEY = "checkpoint"
# And in which numbers, where it was not fp32.
PRECISION_KEY, FULL_PRECISION = "precision", "fp32"
# And whether the UNet was compiled, which changes last bits.
COMPILED_KEY = "compiled"
# And which timesteps were visited, where they were not those of the base's scheduler file.
TIMESTEPS_KEY, PUBLISHED_TIMESTEPS = "timesteps", "published"


@dataclass(frozen=True)
class Picture:
    """One drawn picture: where it lies and how it was made."""

    path: Path
    recipe: Recipe


def words_of(record: RunRecord | None) -> dict[str, Words]:
    """The words of the subjects a run learnt, by subject name; none for a bare base."""
    if record is None:
        return {}
    return {subject.name: Words(subject.identifier or "", subject.class_noun) for subject in record.subjects}


def read_prompts(layout: Layout, prompts: Sequence[str], record: RunRecord | None, progress: Progress) -> None:
    """Warns, a line each, where a prompt probably meant another word than it says."""
    learnt = words_of(record)
    project = {one.name: one.words for one in list_subjects(layout)}
    for prompt in dict.fromkeys(prompts):
        for line in slips(prompt, learnt, project) if learnt else []:
            progress.warn(line)


def recipes_for(
    prompts: Sequence[str],
    settings: DrawSettings,
    *,
    seed: int,
    size_px: tuple[int, int],
    base: Base,
    record: RunRecord | None,
    extras: Mapping[str, Any] | None = None,
) -> list[Recipe]:
    """`settings.count` recipes a prompt, rendered, with seeds seed, seed + 1, … so that each can be redrawn alone.

    `extras` is kept in each recipe: which runs were composed, which checkpoint drew.
    """
    from dbcli.diffusion.arithmetic import drawing_precision
    from dbcli.diffusion.samplers import visited

    words, kept = words_of(record), dict(extras or {})
    precision = drawing_precision(settings.precision, base.unet.device)  # type: ignore[arg-type]
    if precision != FULL_PRECISION:
        kept[PRECISION_KEY] = precision
    if settings.compile:
        kept[COMPILED_KEY] = True
    timesteps = visited(settings.sampler, base.scheduler_config, settings.steps, settings.timesteps)
    if timesteps != PUBLISHED_TIMESTEPS:
        kept[TIMESTEPS_KEY] = timesteps
    return [
        Recipe(
            prompt=render_with(prompt, words),
            negative=render_with(settings.negative, words),
            sampler=settings.sampler,
            eta=settings.eta,
            steps=settings.steps,
            guidance=settings.guidance,
            seed=seed + index,
            index=index,
            width=size_px[0],
            height=size_px[1],
            base_name=base.name if record is None else record.base.name,
            base_hash=base.hash if record is None else record.base.hash,
            run=None if record is None else record.name,
            identifiers={name: one.identifier for name, one in words.items()},
            version=__version__,
            extras=kept,
        )
        for prompt in prompts
        for index in range(settings.count)
    ]


def how_to_draw(recipe: Recipe, batch_size: int) -> How:
    """A recipe as the drawing takes it."""
    from dbcli.diffusion import drawing

    numbers = (recipe.sampler, recipe.steps, recipe.guidance, recipe.eta, recipe.width, recipe.height)
    how = {
        "precision": str(recipe.extras.get(PRECISION_KEY, FULL_PRECISION)),
        "timesteps": str(recipe.extras.get(TIMESTEPS_KEY, PUBLISHED_TIMESTEPS)),
    }
    return drawing.DrawSettings(*numbers, batch_size, compiled=COMPILED_KEY in recipe.extras, **how)


def file_name(recipe: Recipe) -> str:
    """The same recipe has the same name; pictures of one prompt stand together, in order."""
    shared = recipe.model_copy(update={"seed": recipe.seed - recipe.index, "index": 0, "version": ""})
    return f"{hashlib.sha256(shared.to_json().encode()).hexdigest()[:12]}-{recipe.index:04d}.png"


def draw_recipes(
    base: Base,
    recipes: Sequence[Recipe],
    folder: Path,
    *,
    batch_size: int,
    progress: Progress,
    should_stop: Callable[[], bool],
    title: str = "Drawing",
    wanted: Collection[int] | None = None,
) -> list[Picture]:
    """Draws recipes of one sampler, guidance and size into `folder`; each file is whole or not there.

    With `wanted` only the recipes of these indices are drawn, as they would be among all.

    Raises Interrupted between two steps; the pictures finished before stay.
    """
    from dbcli.diffusion.drawing import Order, draw
    from dbcli.diffusion.images import to_image

    if not recipes or (wanted is not None and not wanted):
        return []
    folder.mkdir(parents=True, exist_ok=True)
    one = recipes[0]
    how = how_to_draw(one, batch_size)
    orders = [Order(recipe.prompt, recipe.seed, recipe.negative) for recipe in recipes]
    pictures: dict[int, Picture] = {}
    count = len(wanted) if wanted is not None else len(recipes)
    with progress.stage(title, count, parts=one.steps) as stage, PictureWriter() as writer:
        told: dict[str, Any] = {"on_denoise": stage.advance, "should_stop": should_stop, "on_note": progress.note}
        for index, pixels in draw(base, orders, how, wanted=wanted, **told):
            if wanted is not None and index not in wanted:
                continue
            path = folder / file_name(recipes[index])
            writer.submit(save_png, path, to_image(pixels), recipes[index])
            pictures[index] = Picture(path, recipes[index])
            stage.complete()
    return [pictures[index] for index in sorted(pictures)]


def drawn_files(
    base: Base,
    recipes: Sequence[Recipe],
    folder: Path,
    *,
    count: int,
    batch_size: int,
    progress: Progress,
    should_stop: Callable[[], bool],
    with_what: str = "",
) -> list[list[Path]]:
    """The files of recipes, `count` a prompt, drawn where they are not there yet: a finished picture never changes.

    What is missing is drawn in the batches it would have had among all, so that a kill changes no bit.
    """
    paths = [folder / file_name(recipe) for recipe in recipes]
    missing = {index for index, path in enumerate(paths) if not path.exists()}
    title = f"Drawing {len(missing)} pictures{with_what}"
    how: dict[str, Any] = {"batch_size": batch_size, "progress": progress, "should_stop": should_stop, "title": title}
    if missing:
        shares = dealt(missing, batch_size)
        facts = {"folder": str(folder), "batch_size": batch_size, "shares": shares}
        with together("draw", recipes=[one.to_plain() for one in recipes], **facts):
            draw_recipes(base, recipes, folder, wanted=set(shares[0]), **how)
    return [paths[start : start + count] for start in range(0, len(paths), count)]


def draw_size(base: Base, width: int | None, height: int | None, resolution: int | None) -> tuple[int, int]:
    """The size to draw at in px. Raises UsageError where the autoencoder cannot make it."""
    from dbcli.errors import UsageError

    size = (width or resolution or base.resolution, height or resolution or base.resolution)
    # The UNet halves latents three times at most, the autoencoder shrinks by its factor before that.
    unit = base.vae_factor
    for option, value in zip(("--width", "--height"), size, strict=True):
        if value % unit or not 4 * unit <= value <= 4096:
            raise UsageError(
                f"{option} {value} does not suit this base.", hint=f"a multiple of {unit} from {4 * unit} to 4096"
            )
    return size


def preview(
    layout: Layout,
    record: RunRecord,
    base: Base,
    profile: Profile,
    step: int,
    should_stop: Callable[[], bool] = lambda: False,
) -> None:
    """Draws one picture of each subject as the model stands into `previews/step-000100-dog.png`."""
    from dbcli.diffusion.drawing import Order, draw
    from dbcli.diffusion.images import to_image

    folder = layout.previews_dir(record.name)
    folder.mkdir(parents=True, exist_ok=True)
    size = draw_size(base, None, None, profile.images.resolution)
    settings = profile.draw.model_copy(update={"count": 1, "compile": False})
    for name, words in words_of(record).items():
        template = profile.train.preview_prompt or profile.images.template
        recipe = _preview_recipe(template, {name: words}, settings, profile.train.seed, size, base, record)
        order = Order(recipe.prompt, recipe.seed, recipe.negative)
        for _, pixels in draw(base, [order], how_to_draw(recipe, 1), should_stop=should_stop):
            save_png(folder / f"step-{step:06d}-{name}.png", to_image(pixels), recipe)


def _preview_recipe(
    template: str,
    words: Mapping[str, Words],
    settings: DrawSettings,
    seed: int,
    size: tuple[int, int],
    base: Base,
    record: RunRecord,
) -> Recipe:
    prompt = render_with(template, words)
    return recipes_for([prompt], settings, seed=seed, size_px=size, base=base, record=record)[0]
