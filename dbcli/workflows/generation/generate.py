"""Images of prompts from the bare base, one run, or several LoRAs together: settled, then loaded, then sampled."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dbcli.errors import PromptError
from dbcli.hints import quoted_prompt
from dbcli.project.files.layout import Layout
from dbcli.project.runs.run_store import RunRecord
from dbcli.project.seeds import first_seed, next_seed
from dbcli.project.settings.profile_settings import DrawSettings, Profile
from dbcli.workflows.generation.lora_mix import Composition, compose, load_composition
from dbcli.workflows.generation.recipe_from_image import filled_in, size_for
from dbcli.workflows.generation.request import GenerateRequest
from dbcli.workflows.images.generated import (
    GeneratedImage,
    check_clip_skip,
    check_size,
    generate_images,
    recipes_for,
    text_layers,
    words_of,
)
from dbcli.workflows.images.grids import image_grid
from dbcli.workflows.machine_use import computing
from dbcli.workflows.models.at_checkpoint import require_checkpoint
from dbcli.workflows.models.loaded import LoadedModel
from dbcli.workflows.progress import Progress
from dbcli.workflows.prompts.reading import read_by_base, read_prompts
from dbcli.workflows.prompts.render import check_quotes, rendered
from dbcli.workflows.setup.base_facts import facts_of
from dbcli.workflows.setup.effective_settings import profile_of, sampling_settings
from dbcli.workflows.setup.named_paths import check_output, check_writable
from dbcli.workflows.signals import listening


@dataclass(frozen=True)
class Generated:
    """What one call generated: the run's name (None for the bare base), its images, the grid if one was requested.

    Of several runs `run` is the first, and `title` names them all with their weights.
    """

    run: str | None
    images: list[GeneratedImage]
    grid: Path | None
    title: str


@dataclass(frozen=True)
class _Texts:
    """Prompts and negative prompt (in the settings) in the words of a run, and the seed of the first image."""

    prompts: Sequence[str]
    settings: DrawSettings
    seed: int


def generate(layout: Layout, request: GenerateRequest, progress: Progress, *, offline: bool) -> Generated:
    """Generates `count` images per prompt with a run or several, into the run's images/ or `request.out`.

    What is known from the words alone is told before anything is loaded. Raises PromptError without a prompt,
    DataError for an image without a recipe, UsageError for a seed, an option or an output folder that cannot be, and
    whatever `compose` raises.
    """
    check_quotes(request.prompts, progress)
    check_output(request.out)
    if request.like is not None:
        request = filled_in(layout, request, request.like, progress)
    request = replace(request, prompts=[prompt for prompt in request.prompts if prompt.strip()])
    composition, profile = _chosen(layout, request)
    if not request.prompts:
        name = next(iter(words_of(composition.whole)), None)
        example = "a photo" if name is None else f"a {{{name}}} in space"
        raise PromptError("No prompt was given.", hint=f"dreambooth generate {quoted_prompt(example)}")
    texts = _texts(layout, composition.whole, profile, request, progress)
    check_writable(_folder(layout, composition.whole, request))
    with computing("images", progress), listening() as stop:
        model = _loaded(layout, composition, profile, progress, offline=offline)
        return _sampled(model, request, texts, progress, stop)


def open_model(layout: Layout, request: GenerateRequest, progress: Progress, *, offline: bool) -> LoadedModel:
    """Loads a run, or several, once, for `generate_with`; what the request gets wrong is raised before that."""
    composition, profile = _chosen(layout, request)
    check_output(request.out)
    check_writable(_folder(layout, composition.whole, request))
    return _loaded(layout, composition, profile, progress, offline=offline)


def generate_with(model: LoadedModel, request: GenerateRequest, progress: Progress) -> Generated:
    """Generates the images of a request with a model that stays loaded, whatever runs the request names.

    Raises Interrupted between two steps after a signal, with the images finished before kept; the next call goes on as
    if nothing had been.
    """
    texts = _texts(model.layout, model.record, model.profile, request, progress, seed_option=":seed")
    with listening() as stop:
        return _sampled(model, request, texts, progress, stop)


def first_usual_seed(profile: Profile) -> int:
    """The seed that images begin with where none is asked for."""
    return next_seed(profile.train.seed, 0)


def prompt_words(record: RunRecord | None) -> list[str]:
    """What a prompt may say of a run's subjects: {dog}, the identifier, and both words together."""
    found: dict[str, None] = {}
    for name, words in words_of(record).items():
        found.update(dict.fromkeys(word for word in (f"{{{name}}}", words.text, words.identifier) if word))
    return list(found)


def _chosen(layout: Layout, request: GenerateRequest) -> tuple[Composition, Profile]:
    """Which runs generate and with whose settings; what the request asks of them is checked without loading them."""
    prompts = request.prompts
    if request.recipe is not None and request.recipe.has_prompts:
        # What an image says in braces names no subject, but words that were learnt are words.
        prompts = [re.sub(r"[{}]", " ", prompt) for prompt in prompts]
    composition = compose(layout, request.selection, prompts)
    record = composition.whole
    profile = profile_of(layout, record)
    settings = sampling_settings(profile, request.options)
    if composition.checkpoint is not None and record is not None:
        require_checkpoint(layout, record, composition.checkpoint)
    facts = facts_of(layout)
    check_clip_skip(settings, facts.text_layers)
    if facts.vae_factor is not None:
        width, height = (4 * facts.vae_factor if side is None else side for side in request.size)
        check_size((width, height), request.size, facts.vae_factor)
    return composition, profile


def _texts(
    layout: Layout,
    record: RunRecord | None,
    profile: Profile,
    request: GenerateRequest,
    progress: Progress,
    *,
    seed_option: str = "--seed",
) -> _Texts:
    """The texts that the model will read, with warnings of what it will not read as it was probably meant."""
    settings, recipe = sampling_settings(profile, request.options), request.recipe
    negative, prompts = settings.negative, list(request.prompts)
    if recipe is None or not recipe.has_negative:
        (negative,) = rendered(layout, record, [negative])
    if recipe is None or not recipe.has_prompts:
        prompts = rendered(layout, record, prompts)
    seed = first_usual_seed(profile)
    if request.seed is not None:
        seed = first_seed(request.seed, count=settings.count, option=seed_option)
    read_prompts(layout, prompts, record, progress, negative=negative)
    return _Texts(prompts, settings.model_copy(update={"negative": negative}), seed)


def _loaded(
    layout: Layout, composition: Composition, profile: Profile, progress: Progress, *, offline: bool
) -> LoadedModel:
    from dbcli.diffusion.devices import pick_device

    with progress.stage("Loading the model", 1) as stage:
        device = pick_device(profile.train.device)
        model = load_composition(layout, composition, profile, progress, offline=offline, device=device)
        stage.advance()
    for clash in composition.collisions:
        progress.warn(f"Allowed: {clash}.")
    return model


def _sampled(
    model: LoadedModel, request: GenerateRequest, texts: _Texts, progress: Progress, should_stop: Callable[[], bool]
) -> Generated:
    base, settings = model.base, texts.settings
    check_clip_skip(settings, text_layers(base))
    size = size_for(base, request, model.profile, progress)
    recipes = recipes_for(
        texts.prompts, settings, seed=texts.seed, size_px=size, base=base, record=model.record, extras=model.extras
    )
    read_by_base(model.layout, base, [*texts.prompts, settings.negative], model.record, progress)
    folder = _folder(model.layout, model.record, request)
    images = generate_images(
        base, recipes, folder, batch_size=settings.batch_size, progress=progress, should_stop=should_stop
    )
    grid = image_grid(model.layout, model.record, images, folder) if request.grid else None
    return Generated(model.run, images, grid, model.title)


def _folder(layout: Layout, record: RunRecord | None, request: GenerateRequest) -> Path:
    """Where images go: what was requested, else beside the run, or into the project for the bare base."""
    return request.out or (layout.base_images_dir if record is None else layout.images_dir(record.name))


def generated_document(generated: Generated) -> dict[str, Any]:
    """What `generate --json` prints."""
    return {
        "run": generated.run,
        "drawn_with": generated.title,
        "images": [{"path": str(one.path), **one.recipe.to_plain()} for one in generated.images],
        "grid": None if generated.grid is None else str(generated.grid),
    }
