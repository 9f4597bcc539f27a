"""Drawing what a run has learnt, wherever a prompt says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dbcli.errors import PromptError
from dbcli.project import runs as store
from dbcli.project.layout import Layout
from dbcli.project.profiles import DrawSettings, Profile, frozen_profile, resolve
from dbcli.project.runs import RunRecord
from dbcli.workflows.likeness import Asked, filled_in
from dbcli.workflows.pictures import Picture, draw_recipes, draw_size, read_prompts, recipes_for
from dbcli.workflows.progress import Progress
from dbcli.workflows.signals import listening

BARE_BASE = "base"


@dataclass(frozen=True)
class Drawn:
    """What one call drew: the run's name (None for the bare base), its pictures, and the grid if one was asked for."""

    run: str | None
    pictures: list[Picture]
    grid: Path | None


def chosen_run(layout: Layout, run: str | None) -> RunRecord | None:
    """The finished run meant by --run, the newest if it is left out; None for `--run base`."""
    from dbcli.workflows.train import require_weights

    if run == BARE_BASE:
        return None
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
    run: str | None,
    flags: Mapping[str, Any],
    seed: int | None,
    size: tuple[int | None, int | None],
    grid: bool,
    out: Path | None,
    progress: Progress,
    offline: bool,
    like: Path | None = None,
) -> Drawn:
    """Draws `count` pictures a prompt with a run, into the run's images/ or `out`; `like` fills in what is left open.

    Raises PromptError without a prompt, RunMissing without a finished run, DataError for a picture without a recipe.
    """
    from dbcli.diffusion.devices import pick_device
    from dbcli.workflows.tuned import load_model

    asked = Asked(prompts, run, flags, seed, size)
    if like is not None:
        asked = filled_in(layout, asked, like, progress)
    wanted = [prompt for prompt in asked.prompts if prompt.strip()]
    if not wanted:
        raise PromptError("There is no prompt to draw.", hint='dreambooth generate "a {dog} in space"')
    record = chosen_run(layout, asked.run)
    profile = profile_of(layout, record)
    settings = draw_settings(profile, asked.flags)
    with listening() as wish:
        with progress.stage("Loading the model", 1) as stage:
            base = load_model(layout, record, progress, offline=offline, device=pick_device(profile.train.device))
            stage.advance()
        recipes = recipes_for(
            wanted,
            settings,
            seed=profile.train.seed if asked.seed is None else asked.seed,
            size_px=draw_size(base, *asked.size, profile.images.resolution),
            base=base,
            record=record,
        )
        read_prompts(layout, [recipe.prompt for recipe in recipes], record, progress)
        folder = out or images_folder(layout, record)
        pictures = draw_recipes(
            base, recipes, folder, batch_size=settings.batch_size, progress=progress, should_stop=wish
        )
    return Drawn(
        None if record is None else record.name, pictures, _grid(layout, record, pictures, folder) if grid else None
    )


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
        "images": [{"path": str(one.path), **one.recipe.to_plain()} for one in drawn.pictures],
        "grid": None if drawn.grid is None else str(drawn.grid),
    }
