"""An image generated before, generated again: its recipe fills in whatever the command line leaves open."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dbcli.errors import ConfigError, DataError, RunMissing, UsageError
from dbcli.project.files.layout import Layout
from dbcli.project.files.names import printable
from dbcli.project.images.a1111 import Parameters, read_parameters
from dbcli.project.images.recipes import PARAMETERS_KEY, RECIPE_KEY, Recipe, read_recipe, read_text_chunks
from dbcli.project.prompts.slips import foreign_syntax
from dbcli.project.runs.run_store import find_run
from dbcli.project.seeds import LAST_SEED, RANDOM, RULE, SEEDS, is_seed
from dbcli.project.settings.profile_settings import Profile
from dbcli.project.settings.profiles import resolve
from dbcli.project.settings.project_settings import load_settings
from dbcli.workflows.generation.request import GenerateRequest, ImageRecipe, RunSelection
from dbcli.workflows.images.generated import (
    CLIP_SKIP_KEY,
    COMPILED_KEY,
    FULL_PRECISION,
    LAST_LAYER,
    MOST_PX,
    PRECISION_KEY,
    PUBLISHED_TIMESTEPS,
    TIMESTEPS_KEY,
    check_size,
    image_size,
    nearest_size,
)
from dbcli.workflows.models.loaded import CHECKPOINT_KEY, RUNS_KEY
from dbcli.workflows.progress import Progress
from dbcli.workflows.runs.choose import BARE_BASE
from dbcli.workflows.setup.base_facts import facts_of
from dbcli.workflows.setup.named_paths import require_file

if TYPE_CHECKING:
    from dbcli.diffusion.bases.base import Base

# What a field is called that this program cannot follow.
_TITLES = {"steps": "Steps", "guidance": "CFG scale", "eta": "Eta", "clip_skip": "Clip skip"}
# Extensions write many fields each; they are told by their first word.
_MOST_OF_ONE = 2


@dataclass(frozen=True)
class _Read:
    """What a recipe says: prompt and size, options and the seed as far as it names them, its runs if they are here."""

    prompt: str
    options: Mapping[str, Any]
    seed: int | None
    size: tuple[int, int] | None
    selection: RunSelection = RunSelection()


def filled_in(layout: Layout, request: GenerateRequest, image: Path, progress: Progress) -> GenerateRequest:
    """The request with the recipe inside a PNG for all it leaves open; one image unless a count was requested.

    Our own recipe names the run too. Raises DataError for an image without a recipe that can be read.
    """
    require_file(image, "an image")
    chunks = read_text_chunks(image)
    if RECIPE_KEY in chunks:
        found = _of_ours(layout, read_recipe(image), request, progress)
    elif PARAMETERS_KEY in chunks:
        found = _of_others(layout, read_parameters(chunks[PARAMETERS_KEY]), image, progress)
    else:
        raise DataError(
            f"{image} contains no recipe, neither from dreambooth nor from AUTOMATIC1111.",
            hint="many sites and messengers strip it; use the original file",
        )
    given = {key: value for key, value in request.options.items() if value is not None}
    if request.seed is None and found.seed is not None and not is_seed(found.seed):
        raise UsageError(
            f"{image.name} was generated with the seed {found.seed}, which is out of range: {RULE}. "
            f"Its lowest 32 bits are {found.seed % SEEDS}.",
            hint=f"add --seed {found.seed % SEEDS}",
        )
    asked = request.selection
    has_negative = "negative" in found.options and "negative" not in given
    return replace(
        request,
        prompts=request.prompts or [found.prompt],
        selection=asked if asked.runs else _with_what_is_asked(found.selection, asked),
        options={"count": 1, **found.options, **given},
        seed=found.seed if request.seed is None else request.seed,
        recipe=ImageRecipe(image.name, found.size, not request.prompts, has_negative),
    )


def _with_what_is_asked(found: RunSelection, asked: RunSelection) -> RunSelection:
    """The recipe's runs, with the weights, the checkpoint and the leave to collide that the command line gives."""
    return RunSelection(
        found.runs,
        found.weights if asked.weights is None else asked.weights,
        found.allow_collision or asked.allow_collision,
        found.checkpoint if asked.checkpoint is None else asked.checkpoint,
    )


def size_for(base: Base, request: GenerateRequest, profile: Profile, progress: Progress) -> tuple[int, int]:
    """The size to generate in px. One that an image has and the base cannot make becomes the nearest that it can.

    Raises UsageError for one that was typed.
    """
    width, height = typed = request.size
    if request.recipe is None or request.recipe.size is None or None not in typed:
        return image_size(base, width, height, profile.images.resolution)
    own_width, own_height = request.recipe.size
    wanted = (own_width if width is None else width, own_height if height is None else height)
    fitting = nearest_size(base.step_px, wanted)
    fitting = (width or fitting[0], height or fitting[1])
    check_size(fitting, typed, base.step_px)
    if fitting != wanted:
        progress.warn(
            f"{request.recipe.name} is {wanted[0]} x {wanted[1]} px, which this base cannot generate: "
            f"{fitting[0]} x {fitting[1]} is used."
        )
    return fitting


def _of_ours(layout: Layout, recipe: Recipe, request: GenerateRequest, progress: Progress) -> _Read:
    options = {key: getattr(recipe, key) for key in ("steps", "guidance", "sampler", "eta", "negative")}
    options["precision"] = recipe.extras.get(PRECISION_KEY, FULL_PRECISION)
    options["timesteps"] = recipe.extras.get(TIMESTEPS_KEY, PUBLISHED_TIMESTEPS)
    options["compile"] = COMPILED_KEY in recipe.extras
    options["clip_skip"] = recipe.extras.get(CLIP_SKIP_KEY, LAST_LAYER)
    # Before there was a rule -1 was generated with, of which torch took the lowest 32 bits.
    seed = LAST_SEED if recipe.seed == RANDOM else recipe.seed
    selection = RunSelection() if request.selection.runs else _selection_of(layout, recipe, progress)
    return _Read(recipe.prompt, options, seed, (recipe.width, recipe.height), selection)


def _selection_of(layout: Layout, recipe: Recipe, progress: Progress) -> RunSelection:
    """The runs that an image is of, with their weights, or the bare base; those not in this project are left out."""
    weights = _weights_of(recipe)
    if recipe.run is None and not weights:
        if recipe.base_hash != load_settings(layout).base_hash:
            progress.warn(f"It was generated with another base ({printable(recipe.base_name)}).")
        return RunSelection((BARE_BASE,))
    named = list(weights) or [str(recipe.run)]
    here = tuple(run for run in named if _is_here(layout, run, recipe))
    for run in (run for run in named if run not in here):
        rest = "the others generate" if here else "the newest run generates"
        progress.warn(f"It was generated with the run {printable(run)}, which is not here; {rest} it.")
    if not here:
        return RunSelection()
    if not weights:
        step = recipe.extras.get(CHECKPOINT_KEY)
        return RunSelection(here, checkpoint=step if isinstance(step, int) else None)
    # Whoever generated it first had it allowed; once more changes nothing.
    allowed = bool(recipe.extras.get("allowed_collisions"))
    return RunSelection(here, ",".join(repr(weights[run]) for run in here), allowed)


def _weights_of(recipe: Recipe) -> dict[str, float]:
    """Weight by run, as a recipe keeps them; none where one run was as it is, or where a stranger wrote nonsense."""
    kept = recipe.extras.get(RUNS_KEY)
    try:
        return {str(one["run"]): float(one["weight"]) for one in kept} if isinstance(kept, list) else {}
    except (TypeError, KeyError, ValueError) as error:
        raise DataError("The recipe names runs that cannot be read.", hint="add --run RUN") from error


def _is_here(layout: Layout, run: str, recipe: Recipe) -> bool:
    try:
        return bool(find_run(layout, run).base.hash == recipe.base_hash)
    except RunMissing:
        return False


def _of_others(layout: Layout, read: Parameters, image: Path, progress: Progress) -> _Read:
    unread = list(read.unread)
    asked = {
        "steps": read.steps,
        "guidance": read.guidance,
        "sampler": read.sampler,
        "eta": read.eta,
        "negative": read.negative,
        "clip_skip": read.clip_skip,
    }
    known = {key: value for key, value in asked.items() if value is not None}
    for key in [key for key, value in known.items() if not _can_be(layout, key, value)]:
        unread.append(f"{_TITLES.get(key, key)}: {known.pop(key)}")
    size = read.size_px
    if size is not None and max(size) > MOST_PX:
        unread.append(f"Size: {size[0]}x{size[1]}")
        size = None
    if unread:
        values = ", ".join(printable(one, 60) for one in unread)
        progress.warn(f"{image.name}: not understood, so the run's own settings are used: {values}.")
    ignored = _shortened(read.ignored)
    if ignored:
        progress.warn(f"{image.name}: ignored, not supported by this program: {', '.join(ignored)}.")
    bracketed = [one for text in (read.prompt, read.negative) for one in foreign_syntax(text, emphasis=True)]
    unweighted = [
        one for one in dict.fromkeys(bracketed) if one not in foreign_syntax(f"{read.prompt} {read.negative}")
    ]
    if unweighted:
        shown = ", ".join(printable(one, 40) for one in unweighted[:5])
        progress.warn(f"{shown}: emphasis in its program, read as words here.")
    model = f" with {printable(read.values['Model'], 60)}" if "Model" in read.values else ""
    followed = "with the settings that this program has" if ignored or unread or bracketed else "with the same settings"
    progress.note(
        f"{image.name} was generated by another program{model}; it is generated {followed}, which gives other pixels."
    )
    return _Read(read.prompt, known, read.seed, size)


def _can_be(layout: Layout, key: str, value: Any) -> bool:
    """Whether a value of another program is one that this program and the project's base can generate with."""
    try:
        resolve([("", {"draw": {key: value}})])
    except ConfigError:
        return False
    layers = facts_of(layout).text_layers
    return key != "clip_skip" or layers is None or value <= layers


def _shortened(keys: Sequence[str]) -> list[str]:
    """Keys of fields for a sentence; an extension that writes many of them is told by its name."""
    firsts = Counter(key.split()[0] for key in keys)
    short = (f"{first} …" if firsts[first := key.split()[0]] > _MOST_OF_ONE else key for key in keys)
    return [printable(one, 60) for one in dict.fromkeys(short)]
