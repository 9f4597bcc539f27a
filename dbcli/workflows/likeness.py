"""A picture drawn before, drawn again: its recipe fills in whatever the command line leaves open."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dbcli.errors import DataError, RunMissing
from dbcli.project import runs as store
from dbcli.project.a1111 import Parameters, read_parameters
from dbcli.project.layout import Layout
from dbcli.project.names import printable
from dbcli.project.recipes import PARAMETERS_KEY, RECIPE_KEY, Recipe, read_recipe, read_text_chunks
from dbcli.project.settings import load_settings
from dbcli.workflows.composition import Cast
from dbcli.workflows.pictures import (
    CHECKPOINT_KEY,
    COMPILED_KEY,
    FULL_PRECISION,
    PRECISION_KEY,
    PUBLISHED_TIMESTEPS,
    TIMESTEPS_KEY,
)
from dbcli.workflows.progress import Progress

# What AUTOMATIC1111 obeys and this program draws as words: (cat:1.2), <lora:x:1>.
_OTHERS_SYNTAX = re.compile(r"\([^()]*:[0-9.]+\)|<\w+:[^<>]*>")


@dataclass(frozen=True)
class Asked:
    """What shall be drawn and how, None where nobody said; flags are keys of the drawing settings."""

    prompts: Sequence[str]
    cast: Cast
    flags: Mapping[str, Any]
    seed: int | None
    size: tuple[int | None, int | None]


def filled_in(layout: Layout, asked: Asked, picture: Path, progress: Progress) -> Asked:
    """What was asked for with the recipe inside a PNG for everything else; one picture unless a count was asked for.

    Our own recipe names the run too. Raises DataError for a picture without a recipe that can be read.
    """
    chunks = read_text_chunks(picture)
    if RECIPE_KEY in chunks:
        found = _of_ours(layout, read_recipe(picture), asked, progress)
    elif PARAMETERS_KEY in chunks:
        found = _of_others(read_parameters(chunks[PARAMETERS_KEY]), picture, progress)
    else:
        raise DataError(
            f"{picture} holds no recipe, neither of dreambooth nor of AUTOMATIC1111.",
            hint="many sites and messengers take it out; use the file as it was drawn",
        )
    given = {key: value for key, value in asked.flags.items() if value is not None}
    width, height = (mine or theirs for mine, theirs in zip(asked.size, found.size, strict=True))
    return Asked(
        asked.prompts or found.prompts,
        asked.cast if asked.cast.runs else _at(found.cast, asked.cast.checkpoint),
        {"count": 1, **found.flags, **given},
        found.seed if asked.seed is None else asked.seed,
        (width, height),
    )


def _at(cast: Cast, checkpoint: int | None) -> Cast:
    """The recipe's runs, at the checkpoint that is asked for if there is one."""
    return cast if checkpoint is None else replace(cast, checkpoint=checkpoint)


def _of_ours(layout: Layout, recipe: Recipe, asked: Asked, progress: Progress) -> Asked:
    flags = {key: getattr(recipe, key) for key in ("steps", "guidance", "sampler", "eta", "negative")}
    flags["precision"] = recipe.extras.get(PRECISION_KEY, FULL_PRECISION)
    flags["timesteps"] = recipe.extras.get(TIMESTEPS_KEY, PUBLISHED_TIMESTEPS)
    flags["compile"] = COMPILED_KEY in recipe.extras
    found = Asked([recipe.prompt], Cast(), flags, recipe.seed, (recipe.width, recipe.height))
    return found if asked.cast.runs else replace(found, cast=_cast_of(layout, recipe, progress))


def _cast_of(layout: Layout, recipe: Recipe, progress: Progress) -> Cast:
    """The runs that drew a picture with their weights; those not in this project are left out, with a warning."""
    drawn_with = _composed(recipe)
    if not drawn_with:
        run = _run_of(layout, recipe, progress)
        step = recipe.extras.get(CHECKPOINT_KEY)
        return Cast() if run is None else Cast((run,), checkpoint=step if isinstance(step, int) else None)
    here = [(run, weight) for run, weight in drawn_with if _is_here(layout, run, recipe)]
    for run in (run for run, _ in drawn_with if run not in dict(here)):
        rest = "the others draw" if here else "the newest run draws"
        progress.warn(f"It was drawn with the run {printable(run)}, which is not here; {rest} it.")
    if not here:
        return Cast()
    # Whoever drew it first had it allowed; drawing it again changes nothing.
    allowed = bool(recipe.extras.get("allowed_collisions"))
    return Cast(tuple(run for run, _ in here), ",".join(repr(weight) for _, weight in here), allowed)


def _composed(recipe: Recipe) -> list[tuple[str, float]]:
    """Runs and weights that a recipe keeps; none where a single run drew, or where a stranger wrote nonsense."""
    kept = recipe.extras.get("runs")
    try:
        return [(str(one["run"]), float(one["weight"])) for one in kept] if isinstance(kept, list) else []
    except (TypeError, KeyError, ValueError) as error:
        raise DataError("The recipe names runs that cannot be read.", hint="add --run RUN") from error


def _is_here(layout: Layout, run: str, recipe: Recipe) -> bool:
    try:
        return bool(store.find_run(layout, run).base.hash == recipe.base_hash)
    except RunMissing:
        return False


def _run_of(layout: Layout, recipe: Recipe, progress: Progress) -> str | None:
    """The run that drew a picture, "base" for the bare base; None, with a warning, if it is not in this project."""
    known = load_settings(layout).base_hash
    if recipe.run is None:
        if recipe.base_hash != known:
            progress.warn(f"It was drawn with another base ({printable(recipe.base_name)}).")
        return "base"
    if _is_here(layout, recipe.run, recipe):
        return str(store.find_run(layout, recipe.run).name)
    progress.warn(f"It was drawn with the run {printable(recipe.run)}, which is not here; the newest run draws it.")
    return None


def _of_others(read: Parameters, picture: Path, progress: Progress) -> Asked:
    from dbcli.diffusion.samplers import SAMPLERS

    sampler = read.sampler if read.sampler in SAMPLERS else None
    unread = list(read.unread)
    if read.sampler is not None and sampler is None:
        unread.append(f"Sampler: {read.values['Sampler']}")
    if unread:
        values = ", ".join(printable(one, 60) for one in unread)
        progress.warn(f"{picture.name}: not understood, the run's own is used: {values}.")
    if _OTHERS_SYNTAX.search(f"{read.prompt} {read.negative}"):
        progress.warn("Weights like (word:1.2) and <lora:…> are AUTOMATIC1111's; here they are drawn as words.")
    progress.note(f"{picture.name} was drawn by another program: the same settings, not the same pixels.")
    flags = {
        "steps": read.steps,
        "guidance": read.guidance,
        "sampler": sampler,
        "eta": read.eta,
        "negative": read.negative,
    }
    known = {key: value for key, value in flags.items() if value is not None}
    return Asked([read.prompt], Cast(), known, read.seed, read.size_px or (None, None))
