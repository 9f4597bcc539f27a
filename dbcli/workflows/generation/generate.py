"""Drawing what a run has learnt, wherever a prompt says."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dbcli.errors import PromptError
from dbcli.project.files.layout import Layout
from dbcli.project.runs.run_store import RunRecord
from dbcli.project.seeds import first_seed, next_seed
from dbcli.project.settings.profile_settings import DrawSettings, Profile
from dbcli.project.settings.profiles import resolve
from dbcli.workflows.generation.lora_mix import Composition, compose, load_composition
from dbcli.workflows.generation.recipe_from_image import Asked, filled_in, size_for
from dbcli.workflows.generation.request import GenerateRequest
from dbcli.workflows.images.generated import (
    GeneratedImage,
    check_clip_skip,
    check_size,
    draw_recipes,
    recipes_for,
    text_layers,
)
from dbcli.workflows.machine_use import computing
from dbcli.workflows.models.at_checkpoint import require_checkpoint
from dbcli.workflows.progress import Progress
from dbcli.workflows.prompts.reading import read_by_base, read_prompts
from dbcli.workflows.prompts.render import check_quotes, rendered
from dbcli.workflows.setup.base_facts import facts_of
from dbcli.workflows.setup.effective_settings import profile_of
from dbcli.workflows.setup.output_folder import check_output, check_writable
from dbcli.workflows.signals import listening


@dataclass(frozen=True)
class Drawn:
    """What one call drew: the run's name (None for the bare base), its pictures, the grid if one was asked for.

    Of several runs `run` is the first, and `title` names them all with their weights.
    """

    run: str | None
    images: list[GeneratedImage]
    grid: Path | None
    title: str = "the bare base"


def draw_settings(profile: Profile, flags: Mapping[str, Any]) -> DrawSettings:
    """A profile's drawing settings with the command line's on top; ConfigError names every fault."""
    from dbcli.diffusion.schedulers.samplers import check_sampler

    given = {f"draw.{key}": value for key, value in flags.items() if value is not None}
    if "draw.sampler" in given:
        check_sampler(given["draw.sampler"])
    return resolve([("the run", {"draw": profile.draw.model_dump()}), ("the command line", given)]).draw


def generate(layout: Layout, request: GenerateRequest, progress: Progress, *, offline: bool) -> Drawn:
    """Draws `count` images per prompt with a run or several, into the run's images/ or the request's `out`.

    What is known from the words alone is told before anything is loaded. Raises PromptError without a prompt, DataError
    for an image without a recipe, UsageError for a seed, an option or an output folder that cannot be, and whatever
    `compose` raises.
    """
    check_quotes(request.prompts, progress)
    check_output(request.out)
    asked = Asked(request.prompts, request.selection, request.flags, request.seed, request.size)
    if request.like is not None:
        asked = filled_in(layout, asked, request.like, progress)
    order = _settled(layout, asked, progress)
    folder = request.out or images_folder(layout, order.record)
    check_writable(folder)
    return _drawn(layout, order, folder, progress, grid=request.grid, offline=offline)


@dataclass(frozen=True)
class _Order:
    """What shall be drawn, settled before anything is loaded: prompts and negative prompt in the run's words."""

    composition: Composition
    profile: Profile
    settings: DrawSettings
    prompts: Sequence[str]
    seed: int
    asked: Asked

    @property
    def record(self) -> RunRecord | None:
        return self.composition.whole


def check_typed_size(layout: Layout, size: tuple[int | None, int | None]) -> None:
    """Raises UsageError for a width or height that the base cannot draw, where its files say so without loading."""
    unit = facts_of(layout).vae_factor
    if unit is not None:
        width, height = (4 * unit if side is None else side for side in size)
        check_size((width, height), size, unit)


def _settled(layout: Layout, asked: Asked, progress: Progress) -> _Order:
    wanted = [prompt for prompt in asked.prompts if prompt.strip()]
    if not wanted:
        raise PromptError("There is no prompt to draw.", hint='dreambooth generate "a {dog} in space"')
    # What an image says in braces names no subject, but words that were learnt are words.
    named = [re.sub(r"[{}]", " ", prompt) for prompt in wanted] if asked.is_literal else wanted
    composition = compose(layout, asked.selection, named)
    record = composition.whole
    profile = profile_of(layout, record)
    settings = draw_settings(profile, asked.flags)
    if composition.checkpoint is not None and record is not None:
        require_checkpoint(layout, record, composition.checkpoint)
    check_clip_skip(settings, facts_of(layout).text_layers)
    check_typed_size(layout, asked.size if asked.size_of is None else asked.typed_size)
    negative = settings.negative if asked.is_negative_literal else rendered(layout, record, [settings.negative])[0]
    settings = settings.model_copy(update={"negative": negative})
    texts = wanted if asked.is_literal else rendered(layout, record, wanted)
    seed = profile.train.seed if asked.seed is None else first_seed(asked.seed, count=settings.count)
    read_prompts(layout, texts, record, progress, negative=negative)
    return _Order(composition, profile, settings, texts, next_seed(seed, 0), asked)


def _drawn(layout: Layout, order: _Order, folder: Path, progress: Progress, *, grid: bool, offline: bool) -> Drawn:
    from dbcli.diffusion.devices import pick_device

    composition, record, settings = order.composition, order.record, order.settings
    with computing("images", progress), listening() as stop:
        with progress.stage("Loading the model", 1) as stage:
            device = pick_device(order.profile.train.device)
            base = load_composition(layout, composition, progress, offline=offline, device=device)
            stage.advance()
        check_clip_skip(settings, text_layers(base))
        recipes = recipes_for(
            order.prompts,
            settings,
            seed=order.seed,
            size_px=size_for(base, order.asked, order.profile, progress),
            base=base,
            record=record,
            extras=composition.extras(),
        )
        read_by_base(layout, base, [*order.prompts, settings.negative], record, progress)
        images = draw_recipes(
            base, recipes, folder, batch_size=settings.batch_size, progress=progress, should_stop=stop
        )
    for clash in composition.collisions:
        progress.warn(f"Allowed: {clash}.")
    sheet = _grid(layout, record, images, folder) if grid else None
    return Drawn(None if record is None else record.name, images, sheet, composition.name or "the bare base")


def images_folder(layout: Layout, record: RunRecord | None) -> Path:
    """Where pictures go if nobody says otherwise: beside the run, or into the project for the bare base."""
    return layout.root / "images" if record is None else layout.images_dir(record.name)


def _grid(layout: Layout, record: RunRecord | None, images: Sequence[GeneratedImage], folder: Path) -> Path:
    """One picture of all: the photos first, then a row a prompt."""
    from dbcli.workflows.images.grids import image_grid

    return image_grid(layout, record, images, folder)


def drawn_document(drawn: Drawn) -> dict[str, Any]:
    """What `generate --json` prints."""
    return {
        "run": drawn.run,
        "drawn_with": drawn.title,
        "images": [{"path": str(one.path), **one.recipe.to_plain()} for one in drawn.images],
        "grid": None if drawn.grid is None else str(drawn.grid),
    }
