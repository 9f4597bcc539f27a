"""Images generated into a folder: each PNG carries its whole recipe and is named by a hash and its index."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dbcli import __version__
from dbcli.counts import counted
from dbcli.diffusion.distributed import SINGLE, ProcessGroup
from dbcli.errors import UsageError
from dbcli.project.files.layout import Layout
from dbcli.project.images.recipes import Recipe, save_png
from dbcli.project.prompts.identifiers import Words, render_for, render_with
from dbcli.project.runs.run_store import RunRecord
from dbcli.project.seeds import next_seed
from dbcli.project.settings.profile_settings import DrawSettings, Profile
from dbcli.workflows.images.image_writer import image_writer
from dbcli.workflows.models.loaded import CHECKPOINT_KEY, LoadedModel
from dbcli.workflows.progress import Progress

if TYPE_CHECKING:
    from PIL import Image

    from dbcli.diffusion.bases.base import Base
    from dbcli.diffusion.sampling.sample import SampleRequest, SamplingSettings

# Among a recipe's extras: the precision of the UNet, where it was not fp32.
PRECISION_KEY, FULL_PRECISION = "precision", "fp32"
# And whether the UNet was compiled, which changes last bits.
COMPILED_KEY = "compiled"
# And which timesteps were visited, where they were not those of the base's scheduler file.
TIMESTEPS_KEY, PUBLISHED_TIMESTEPS = "timesteps", "published"
# And the layer of the text encoder whose output it was, counted from the last, which is 1.
CLIP_SKIP_KEY, LAST_LAYER = "clip_skip", 1
MOST_PX = 4096


@dataclass(frozen=True)
class GeneratedImage:
    """One generated image: where it lies and how it was made."""

    path: Path
    recipe: Recipe


def in_words(settings: DrawSettings, words: Mapping[str, Words]) -> DrawSettings:
    """The settings with the negative prompt rendered."""
    return settings.model_copy(update={"negative": render_with(settings.negative, words)})


def words_of(record: RunRecord | None) -> dict[str, Words]:
    """The words of the subjects a run learnt, by subject name; none for a bare base."""
    if record is None:
        return {}
    return {subject.name: Words(subject.identifier or "", subject.class_noun) for subject in record.subjects}


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
    """`settings.count` recipes per prompt with seeds seed, seed + 1, … so that each can be generated again alone.

    Prompts and negative prompt are rendered already: braces that are left in them are text. After the last seed comes
    0. `extras` is kept in each recipe: which runs were composed, which checkpoint drew.
    """
    from dbcli.diffusion.precision import precision_on

    words, kept = words_of(record), dict(extras or {})
    device: Any = base.unet.device
    precision = precision_on(settings.precision, device)
    if precision != FULL_PRECISION:
        kept[PRECISION_KEY] = precision
    if settings.compile:
        kept[COMPILED_KEY] = True
    timesteps = base.process.visited(settings.sampler, settings.steps, settings.timesteps)
    if timesteps != PUBLISHED_TIMESTEPS:
        kept[TIMESTEPS_KEY] = timesteps
    if settings.clip_skip != LAST_LAYER:
        kept[CLIP_SKIP_KEY] = settings.clip_skip
    return [
        Recipe(
            prompt=prompt,
            negative=settings.negative,
            sampler=settings.sampler,
            eta=settings.eta,
            steps=settings.steps,
            guidance=settings.guidance,
            seed=next_seed(seed, index),
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


def sampling_of(recipe: Recipe, batch_size: int) -> SamplingSettings:
    """A recipe as the sampling takes it."""
    from dbcli.diffusion.sampling.sample import SamplingSettings

    extras = recipe.extras
    return SamplingSettings(
        recipe.sampler,
        recipe.steps,
        recipe.guidance,
        recipe.eta,
        recipe.width,
        recipe.height,
        batch_size,
        clip_skip=int(extras.get(CLIP_SKIP_KEY, LAST_LAYER)) - LAST_LAYER,
        precision=str(extras.get(PRECISION_KEY, FULL_PRECISION)),
        compiled=COMPILED_KEY in extras,
        timesteps=str(extras.get(TIMESTEPS_KEY, PUBLISHED_TIMESTEPS)),
    )


def file_name(recipe: Recipe) -> str:
    """The same recipe has the same name; images of one prompt stand together, in order."""
    shared = recipe.model_copy(update={"seed": recipe.seed - recipe.index, "index": 0, "version": ""})
    return f"{hashlib.sha256(shared.to_json().encode()).hexdigest()[:12]}-{recipe.index:04d}.png"


def generate_images(
    base: Base,
    recipes: Sequence[Recipe],
    folder: Path,
    *,
    batch_size: int,
    progress: Progress,
    should_stop: Callable[[], bool],
    wanted: Collection[int] | None = None,
    title: str | None = None,
) -> list[GeneratedImage]:
    """Generates recipes of one sampler, guidance and size into `folder`; each file is whole or not there.

    With `wanted` only the recipes of these indices are generated, as they would be among all.

    Raises Interrupted between two steps; the images finished before stay.
    """
    from dbcli.diffusion.sampling.sample import SampleRequest

    chosen = range(len(recipes)) if wanted is None else wanted
    if not chosen:
        return []
    folder.mkdir(parents=True, exist_ok=True)
    sampling = sampling_of(recipes[0], batch_size)
    requests = [SampleRequest(recipe.prompt, recipe.seed, recipe.negative) for recipe in recipes]
    title = title or f"Generating {len(chosen)} image{'' if len(chosen) == 1 else 's'}"
    found: list[GeneratedImage] = []
    with image_writer() as write_later:
        for index, image in sampled(base, requests, sampling, chosen, title, progress, should_stop):
            found.append(GeneratedImage(folder / file_name(recipes[index]), recipes[index]))
            write_later(save_png, found[-1].path, image, recipes[index])
    return found


def sampled(
    base: Base,
    requests: Sequence[SampleRequest],
    sampling: SamplingSettings,
    wanted: Collection[int],
    title: str,
    progress: Progress,
    should_stop: Callable[[], bool],
) -> Iterator[tuple[int, Image.Image]]:
    """Gives (index, image) for the `wanted` indices of requests, as they would be among all, under one bar.

    Raises Interrupted between two steps.
    """
    from dbcli.diffusion.images import to_image
    from dbcli.diffusion.sampling.sample import sample_images

    with progress.stage(title, len(wanted), parts=sampling.steps) as stage:
        for index, pixels in sample_images(
            base,
            requests,
            sampling,
            wanted=wanted,
            on_denoise=stage.advance,
            should_stop=should_stop,
            on_note=progress.note,
        ):
            if index in wanted:
                yield index, to_image(pixels)
                stage.complete()


@dataclass(frozen=True)
class PromptSampler:
    """How the images of prompts are generated, the same for whichever model; `seed` is each prompt's first image's."""

    settings: DrawSettings
    seed: int
    progress: Progress
    should_stop: Callable[[], bool]
    group: ProcessGroup = SINGLE

    def files(
        self, model: LoadedModel, prompts: Sequence[str], folder: Path, *, count: int | None = None
    ) -> list[list[Path]]:
        """The files of each rendered prompt, `count` of them if given; those that are there are never made again.

        What is missing is generated in the batches it would have had among all, so that a kill changes no bit.
        """
        base, batch_size = model.base, self.settings.batch_size
        settings = self.settings if count is None else self.settings.model_copy(update={"count": count})
        size_px = image_size(base, None, None, model.profile.images.resolution)
        recipes = recipes_for(
            prompts, settings, seed=self.seed, size_px=size_px, base=base, record=model.record, extras=model.extras
        )
        paths = [folder / file_name(recipe) for recipe in recipes]
        missing = self.group.on_main(lambda: {index for index, path in enumerate(paths) if not path.exists()})
        if missing:
            with self.group.together():
                generate_images(
                    base,
                    recipes,
                    folder,
                    batch_size=batch_size,
                    progress=self.progress,
                    should_stop=self.should_stop,
                    wanted=self.group.split(missing, batch_size),
                    title=f"Generating {counted(len(missing), 'image')} with {model.title}",
                )
        return [paths[start : start + settings.count] for start in range(0, len(paths), settings.count)]


def image_size(base: Base, width: int | None, height: int | None, resolution: int | None) -> tuple[int, int]:
    """The size to generate in px. Raises UsageError where the autoencoder cannot make it."""
    usual = resolution or base.resolution
    size = (usual if width is None else width, usual if height is None else height)
    check_size(size, (width, height), base.step_px)
    return size


def check_size(size: tuple[int, int], typed: tuple[int | None, int | None], unit: int) -> None:
    """Raises UsageError where an autoencoder that makes latents of `unit` px cannot make a size."""
    fitting = nearest_size(unit, size)
    for number, option in enumerate(("--width", "--height")):
        if size[number] != fitting[number]:
            name = "images.resolution" if typed[number] is None else option
            raise UsageError(
                f"{name} {size[number]} does not fit this base: multiples of {unit} from {4 * unit} to {MOST_PX} do.",
                hint=f"{option} {fitting[number]}",
            )


def nearest_size(unit: int, size: tuple[int, int]) -> tuple[int, int]:
    """The nearest size in px that can be made of latents of `unit` px."""
    # The UNet halves latents three times at most, the autoencoder shrinks by its factor before that.
    width, height = (min(max(round(side / unit), 4), MOST_PX // unit) * unit for side in size)
    return width, height


def check_clip_skip(settings: DrawSettings, layers: int | None) -> None:
    """Raises UsageError where the text encoder has fewer layers than draw.clip_skip counts; None: not known yet."""
    if layers is not None and settings.clip_skip > layers:
        raise UsageError(
            f"--clip-skip {settings.clip_skip} is too large for this base: its text encoder has {layers} "
            f"layer{'' if layers == 1 else 's'}.",
            hint=f"--clip-skip {layers} (the first layer) or less",
        )


def text_layers(base: Base) -> int:
    """How many layers of a base's text encoders can condition images; of two encoders, those that both have."""
    configs: list[Any] = [encoder.config for encoder in base.encoders.values()]
    return min(int(config.num_hidden_layers) for config in configs) + 1 - base.family.usual_state


def preview(
    layout: Layout,
    record: RunRecord,
    base: Base,
    profile: Profile,
    step: int,
    should_stop: Callable[[], bool] = lambda: False,
) -> None:
    """Generates one image of each subject as the model stands into `previews/step-000100-dog.png`."""
    from dbcli.diffusion.images import to_image
    from dbcli.diffusion.sampling.sample import SampleRequest, sample_images

    folder = layout.previews_dir(record.name)
    folder.mkdir(parents=True, exist_ok=True)
    size = image_size(base, None, None, profile.images.resolution)
    settings = profile.draw.model_copy(update={"count": 1, "compile": False})
    words = words_of(record)
    settings = in_words(settings, words)
    template = profile.train.preview_prompt or profile.images.templates[0]
    for name in words:
        prompt = render_for(template, name, words)
        (recipe,) = recipes_for(
            [prompt],
            settings,
            seed=profile.train.seed,
            size_px=size,
            base=base,
            record=record,
            extras={CHECKPOINT_KEY: step},
        )
        order = SampleRequest(recipe.prompt, recipe.seed, recipe.negative)
        for _, pixels in sample_images(base, [order], sampling_of(recipe, 1), should_stop=should_stop):
            save_png(folder / f"step-{step:06d}-{name}.png", to_image(pixels), recipe)
