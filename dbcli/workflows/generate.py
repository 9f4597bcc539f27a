"""Drawing what a run has learnt, wherever a prompt says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dbcli.errors import PromptError, UsageError
from dbcli.project import runs as store
from dbcli.project.layout import Layout
from dbcli.project.profile_settings import DrawSettings, Profile
from dbcli.project.profiles import frozen_profile, resolve
from dbcli.project.runs import RunRecord
from dbcli.workflows.composition import Cast, compose, load_composition
from dbcli.workflows.likeness import Asked, filled_in
from dbcli.workflows.machine_use import computing
from dbcli.workflows.pictures import Picture, draw_recipes, draw_size, read_prompts, recipes_for
from dbcli.workflows.progress import Progress
from dbcli.workflows.signals import listening

BARE_BASE = "base"


@dataclass(frozen=True)
class Drawn:
    """What one call drew: the run's name (None for the bare base), its pictures, the grid if one was asked for.

    Of several runs `run` is the first, and `title` names them all with their weights.
    """

    run: str | None
    pictures: list[Picture]
    grid: Path | None
    title: str = "the bare base"


def chosen_run(layout: Layout, run: str | None, checkpoint: int | None = None) -> RunRecord | None:
    """The finished run meant by --run, the newest if it is left out; None for `--run base`.

    A named run with a checkpoint need not be finished. Raises UsageError for a checkpoint of the bare base.
    """
    from dbcli.workflows.train import require_weights

    if run == BARE_BASE:
        if checkpoint is not None:
            raise UsageError("The bare base has no checkpoints.", hint="--run NAME --checkpoint STEP")
        return None
    if run and checkpoint is not None:
        return store.find_run(layout, run)
    record = store.find_run(layout, run) if run else store.newest_run(layout)
    require_weights(record)
    return record


def profile_of(layout: Layout, record: RunRecord | None) -> Profile:
    """The settings a run was frozen with; the project's own for the bare base."""
    from dbcli.workflows.settings import resolve_profile

    if record is None:
        return resolve_profile(layout)[1]
    return frozen_profile(record.profile, layout.shown(layout.run_file(record.name)))


def draw_settings(profile: Profile, flags: Mapping[str, Any]) -> DrawSettings:
    """A profile's drawing settings with the command line's on top; ConfigError names every fault."""
    given = {f"draw.{key}": value for key, value in flags.items() if value is not None}
    return resolve([("the run", {"draw": profile.draw.model_dump()}), ("the command line", given)]).draw


def generate(
    layout: Layout,
    prompts: Sequence[str],
    *,
    cast: Cast,
    flags: Mapping[str, Any],
    seed: int | None,
    size: tuple[int | None, int | None],
    grid: bool,
    out: Path | None,
    progress: Progress,
    offline: bool,
    like: Path | None = None,
) -> Drawn:
    """Draws `count` pictures a prompt with a run or several, into the run's images/ or `out`.

    `like` is a picture whose recipe fills in what is left open.

    Raises PromptError without a prompt, DataError for a picture without a recipe, and whatever `compose` raises.
    """
    from dbcli.diffusion.devices import pick_device

    asked = Asked(prompts, cast, flags, seed, size)
    if like is not None:
        asked = filled_in(layout, asked, like, progress)
    wanted = [prompt for prompt in asked.prompts if prompt.strip()]
    if not wanted:
        raise PromptError("There is no prompt to draw.", hint='dreambooth generate "a {dog} in space"')
    composition = compose(layout, asked.cast)
    record = composition.whole
    profile = profile_of(layout, record)
    settings = draw_settings(profile, asked.flags)
    with computing("images", progress), listening() as wish:
        with progress.stage("Loading the model", 1) as stage:
            device = pick_device(profile.train.device)
            base = load_composition(layout, composition, progress, offline=offline, device=device)
            stage.advance()
        recipes = recipes_for(
            wanted,
            settings,
            seed=profile.train.seed if asked.seed is None else asked.seed,
            size_px=draw_size(base, *asked.size, profile.images.resolution),
            base=base,
            record=record,
            extras=composition.extras(),
        )
        read_prompts(layout, [recipe.prompt for recipe in recipes], record, progress)
        folder = out or images_folder(layout, record)
        pictures = draw_recipes(
            base, recipes, folder, batch_size=settings.batch_size, progress=progress, should_stop=wish
        )
    for clash in composition.collisions:
        progress.warn(f"Allowed: {clash}.")
    sheet = _grid(layout, record, pictures, folder) if grid else None
    return Drawn(None if record is None else record.name, pictures, sheet, composition.name or "the bare base")


def images_folder(layout: Layout, record: RunRecord | None) -> Path:
    """Where pictures go if nobody says otherwise: beside the run, or into the project for the bare base."""
    return layout.root / "images" if record is None else layout.images_dir(record.name)


def _grid(layout: Layout, record: RunRecord | None, pictures: Sequence[Picture], folder: Path) -> Path:
    """One picture of all: the photos first, then a row a prompt."""
    from dbcli.workflows.grids import picture_grid

    return picture_grid(layout, record, pictures, folder)


def drawn_document(drawn: Drawn) -> dict[str, Any]:
    """What `generate --json` prints."""
    return {
        "run": drawn.run,
        "drawn_with": drawn.title,
        "images": [{"path": str(one.path), **one.recipe.to_plain()} for one in drawn.pictures],
        "grid": None if drawn.grid is None else str(drawn.grid),
    }
