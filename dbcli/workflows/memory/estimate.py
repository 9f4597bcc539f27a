"""What a recipe will take of this machine, estimated before it begins: memory at its peak, and time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

from dbcli.diffusion.buckets import Size
from dbcli.diffusion.machine import free_ram_bytes, has_surely_no_gpu, resident_bytes
from dbcli.errors import BaseMissing, ConfigError, Unreachable, UsageError
from dbcli.project.files.layout import Layout
from dbcli.project.settings.profile_settings import FROZEN, Profile
from dbcli.project.settings.project_settings import load_settings
from dbcli.project.subjects.subject_record import Subject
from dbcli.workflows.class_images.sentences import stored_draws
from dbcli.workflows.memory.amounts import (
    Shapes,
    class_images_of,
    images_to_encode,
    prompts_to_keep,
    rows_of,
    scenes_a_photo,
)
from dbcli.workflows.memory.known_costs import Cost, key_of, known_cost, remember_cost
from dbcli.workflows.memory.ladder import below, rung_of, rungs
from dbcli.workflows.progress import Progress
from dbcli.workflows.setup.effective_settings import default_profile, resolve_profile

if TYPE_CHECKING:
    from dbcli.diffusion.estimate.cost import PassCost

# Textual inversion stands on no rung.
ESTIMATED = ("full", "lora")
# Room for what is not counted: the allocator's gaps, and what other programs take meanwhile.
SPARE = 0.05
# Measured on the CPU: compiled kernels and the gaps between tensors, whatever the model's size.
WORKING_BYTES = 150_000_000


@dataclass(frozen=True)
class RecipeEstimate:
    """One recipe on this machine: bytes in each phase beside the program's own, and seconds.

    `peak_bytes` is what `peak_memory_bytes` of the run's record should come to.
    """

    rung: str
    profile: Profile
    peak_bytes: int
    phases: dict[str, int]
    step_seconds: float
    seconds: float
    fits: bool


@dataclass(frozen=True)
class MemoryEstimate:
    """The chosen recipe's estimate, and those below it down to the first that fits; for `latent_shape` see `Cost`."""

    recipes: list[RecipeEstimate]
    free_bytes: int
    device: str
    latent_shape: tuple[int, int, int] | None = None

    @property
    def fitting(self) -> RecipeEstimate | None:
        """The first rung, from the first one down, that this machine has the memory for."""
        return next((one for one in self.recipes if one.fits), None)

    @property
    def chosen(self) -> RecipeEstimate:
        """The first rung that fits, or the smallest."""
        return self.fitting or self.recipes[-1]


def estimate_recipe(
    layout: Layout,
    subjects: Sequence[Subject],
    profile: Profile,
    *,
    other_method: bool = True,
    processes: int = 1,
) -> MemoryEstimate | None:
    """Estimates a recipe and, while it does not fit, the rungs below it. Nothing is loaded, fetched or written.

    Those of another method only where `other_method` allows them, and those that so many processes can stand on.

    None for a method that is not estimated, and where the base is not on this machine and its size not known.
    """
    if profile.method not in ESTIMATED:
        return None
    base, count = load_settings(layout).base, max(1, len(subjects))

    def downwards() -> Iterator[Profile]:
        one = profile
        yield one
        while found := below(one, base, other_method=other_method, subjects=count, processes=processes):
            one = found[1]
            yield one

    try:
        return _estimate(layout, subjects, downwards())
    except (Unreachable, BaseMissing):
        return None


def choose_recipe(
    layout: Layout,
    subjects: Sequence[Subject],
    *,
    sets: Sequence[str] = (),
    flags: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    processes: int = 1,
) -> MemoryEstimate:
    """Estimates the whole ladder from its top to the first rung that fits; what a person set holds on every rung.

    A rung that they rule out is left out, and so is the fused backward pass on several processes. Raises UsageError
    where the size of the base is not known, or no rung has the method that was requested, and ConfigError where they
    can hold on no rung.
    """
    base = load_settings(layout).base
    faults: list[ConfigError] = []
    seen: list[Profile] = []

    def recipes() -> Iterator[Profile]:
        for rung in rungs(processes):
            own = [f"{key}={value}".lower() for key, value in rung.settings.items()]
            wanted = (flags or {}).get("method")
            if wanted not in (None, rung.method) or (wanted is None and rung.for_its_method):
                continue
            named, count = default_profile(base, rung.method), max(1, len(subjects))
            try:
                profile = resolve_profile(layout, profile=named, sets=[*own, *sets], flags=flags, subjects=count)[1]
            except ConfigError as fault:
                faults.append(fault)
                continue
            if profile.method == rung.method and profile not in seen:
                seen.append(profile)
                yield profile

    try:
        estimate = _estimate(layout, subjects, recipes())
    except (Unreachable, BaseMissing) as error:
        raise UsageError(
            f"How much memory {base} needs is not known until it is on this machine.",
            hint="name a profile for the first run: --profile lora",
        ) from error
    if not estimate.recipes and faults:
        raise faults[0]
    if not estimate.recipes:
        raise UsageError("The profile auto has no recipe for that method.", hint="--method full or --method lora")
    if progress is not None and estimate.fitting is None:
        least, free = estimate.chosen, estimate.free_bytes / 1e9
        progress.warn(f"Even '{least.rung}' takes about {least.peak_bytes / 1e9:.1f} GB; {free:.1f} GB are free.")
    return estimate


def _estimate(layout: Layout, subjects: Sequence[Subject], recipes: Iterator[Profile]) -> MemoryEstimate:
    """Estimates recipes one by one until one fits."""
    settings = load_settings(layout)
    photos = [shape for subject in subjects for shape in subject.shapes]
    estimates: list[RecipeEstimate] = []
    name, free, shape = "", 0, None
    for profile in recipes:
        device = _device(profile.train.device)
        prompts, class_images = prompts_to_keep(profile, subjects), class_images_of(profile, subjects)
        facts = [len(photos) if profile.images.buckets == "off" else sorted(photos), prompts, class_images]
        key = key_of(settings, profile, facts, device)
        cost, loaded = known_cost(key), resident_bytes()
        # What was imported to find a cost out will be once more to train: it is not free.
        free = _free_bytes(device) - (0 if cost is None else max(0, cost.loaded_bytes - loaded))
        if cost is None:
            model = _Model(settings.base, settings.revision, tuple(settings.base_choices.items()), device)
            cost = replace(_cost(model, profile, photos, prompts, class_images), loaded_bytes=loaded)
            remember_cost(key, cost)
        name, shape = cost.device, cost.latent_shape
        estimates.append(_judged(cost, profile, free, is_cpu=not device.startswith("cuda")))
        if estimates[-1].fits:
            break
    return MemoryEstimate(estimates, free, name, shape)


def _device(wanted: str) -> str:
    """The device that a setting means, by torch only where it may be another one than the CPU."""
    if wanted in ("auto", "cpu") and has_surely_no_gpu():
        return "cpu"
    from dbcli.diffusion.devices import pick_device

    return str(pick_device(wanted))


def _free_bytes(device: str) -> int:
    if device == "cpu":
        return free_ram_bytes()
    import torch

    from dbcli.diffusion.devices import free_memory_bytes

    return free_memory_bytes(torch.device(device))


def _judged(cost: Cost, profile: Profile, free: int, *, is_cpu: bool) -> RecipeEstimate:
    peak, rung = max(cost.phases.values()), rung_of(profile)
    name = rung.name if rung is not None else profile.method
    fits = (peak + (WORKING_BYTES if is_cpu else 0)) * (1 + SPARE) <= free
    whole = cost.own_bytes + peak
    return RecipeEstimate(name, profile, whole, cost.phases, cost.step_seconds, cost.seconds, fits)


@dataclass(frozen=True)
class _Model:
    """A base on a device: what is known of its fake runs is kept under it."""

    source: str
    revision: str | None
    choices: tuple[tuple[str, str | None], ...]
    device: str


@dataclass(frozen=True)
class _Training:
    """What a step of a recipe takes, what stays for it by optimiser and by prompt, and what the program holds."""

    own_bytes: int
    held_bytes: dict[str, int]
    learning: int
    largest: int
    prompt_bytes: int
    activation_bytes: int
    step: PassCost


@dataclass(frozen=True)
class _Before:
    """What comes before the steps takes, on the base as it is, and the sizes of its fake run."""

    size: Size
    channels: int
    latent_px: int
    latent_shape: tuple[int, int, int]
    plain_bytes: int
    unloaded_bytes: int
    denoise: PassCost
    decode: PassCost
    encode: PassCost


def _cost(model: _Model, profile: Profile, photos: Sequence[Size], prompts: int, class_images: int) -> Cost:
    import torch

    from dbcli.diffusion.devices import device_name
    from dbcli.diffusion.estimate.cost import measured_speed
    from dbcli.diffusion.estimate.footprint import update_bytes
    from dbcli.diffusion.images import ENCODE_BATCH, encoded_at_once
    from dbcli.diffusion.precision import AUTOCAST, precision_on
    from dbcli.diffusion.training.allocator import leaves_gaps

    device, train, prior = torch.device(model.device), profile.train, profile.prior
    count = class_images if prior.folder is None else 0
    count += len(photos) * scenes_a_photo(profile)
    images = images_to_encode(profile, len(photos), class_images)
    neutral = profile.model_copy(update={"train": train.model_copy(update={"optimizer": "adamw", "steps": 1})})
    shapes = Shapes(profile.images.resolution, profile.images.buckets, tuple(photos))
    done = _training(model, neutral.model_dump_json(), shapes)
    at_once = (min(prior.batch_size, count or 1), min(ENCODE_BATCH, images))
    before = _before(model, shapes, prior.precision, at_once)
    is_cpu = device.type != "cuda"
    # On the CPU half of what encoding held comes back in pieces too small for what training asks for.
    in_pieces = before.encode.peak_bytes // 2 if is_cpu and not leaves_gaps(done.activation_bytes) else 0
    pixels = images * 3 * before.size[0] * before.size[1] * 4 if is_cpu else 0
    update = update_bytes(train.optimizer, done.largest, rounds=train.stochastic_rounding, device=device)
    held = done.held_bytes[train.optimizer] + update + (4 * done.learning if train.ema is not None else 0)
    held += prompts * done.prompt_bytes
    phases = {
        "class images": before.plain_bytes + max(before.denoise.peak_bytes, before.decode.peak_bytes) if count else 0,
        **({"prompts": before.plain_bytes + before.unloaded_bytes} if before.unloaded_bytes else {}),
        "encode": before.plain_bytes + pixels + before.encode.peak_bytes,
        "train": held + done.step.peak_bytes + in_pieces,
    }
    rows = rows_of(profile)
    dtype = AUTOCAST.get(precision_on(train.precision, device), torch.float32)
    speed = measured_speed(device, channels=before.channels, rows=rows, size=before.latent_px, dtype=dtype)
    step_seconds = train.accumulation * speed.seconds(done.step)
    batches = -(-images // min(images, encoded_at_once(*before.size)))
    seconds = step_seconds * train.steps + batches * speed.seconds(before.encode)
    seconds += -(-count // prior.batch_size) * prior.steps * speed.seconds(before.denoise)
    seconds += count * speed.seconds(before.decode)
    # A teacher is asked with one prompt, where a step of drawing asks with two.
    taught = class_images * stored_draws(profile)
    seconds += -(-taught // at_once[0]) * speed.seconds(before.denoise) / 2
    return Cost(device_name(device), 0, done.own_bytes, phases, step_seconds, seconds, before.latent_shape)


# Rungs that differ in their optimiser alone share their steps.
@lru_cache(maxsize=16)
def _training(model: _Model, recipe: str, shapes: Shapes) -> _Training:
    import torch

    from dbcli.diffusion.estimate.meta_base import load_meta_base, place, placed
    from dbcli.workflows.models.trainable import make_trainable

    profile, device = Profile.model_validate_json(recipe, context=FROZEN), torch.device(model.device)
    base = load_meta_base(model.source, model.revision, **dict(model.choices))
    # As much as a run has loaded of the program itself; what a fake run needs comes after it. Optimisers import torch's
    # compiler at their first step.
    for library in ("torch._dynamo", *(["peft"] if profile.method == "lora" else [])):
        import_module(library)
    own = 0 if device.type == "cuda" else resident_bytes() + WORKING_BYTES
    from dbcli.diffusion.bases.stored_layers import is_kept
    from dbcli.diffusion.devices import idle_in_training
    from dbcli.diffusion.estimate import footprint
    from dbcli.diffusion.estimate.activations import activation_bytes
    from dbcli.diffusion.estimate.cost import fake_tensors
    from dbcli.diffusion.precision import precision_on
    from dbcli.diffusion.unloading import can_be_read_again

    trainable = make_trainable(base, profile, ())
    size, train = shapes.largest(base), profile.train
    rows, precision = rows_of(profile), precision_on(train.precision, device)
    batch = footprint.Batch(rows, size, precision)
    with fake_tensors():
        place(base, device)
        trainable = placed(base, trainable)
        step = footprint.training_pass(base, trainable, batch, fused=train.fused_backward)
        weights = footprint.weights_bytes(base)
        idle = idle_in_training(base, trains_text=trainable.trains_text)
        if device.type != "cuda":  # Apple's GPUs have no memory but the machine's
            idle = [one for one in idle if is_kept(one) and can_be_read_again(base.files)]
        weights -= footprint.network_bytes(idle)
        held = {name: weights + footprint.optimiser_bytes(name, trainable) for name in footprint.OPTIMISER_BYTES}
        prompt = 0 if trainable.trains_text else footprint.prompt_bytes(base)
    largest = max(parameter.numel() for parameter in trainable.tensors.values())
    activation = activation_bytes(base, rows, size[0] // base.vae_factor * (size[1] // base.vae_factor))
    return _Training(own, held, trainable.count, largest, prompt, activation, step)


# Class images come and photos are encoded before a rung changes anything of a base: it is the same for all of them.
@lru_cache(maxsize=4)
def _before(model: _Model, shapes: Shapes, precision: str, at_once: tuple[int, int]) -> _Before:
    import torch

    from dbcli.diffusion.estimate import footprint
    from dbcli.diffusion.estimate.activations import width
    from dbcli.diffusion.estimate.cost import fake_tensors
    from dbcli.diffusion.estimate.footprint import Batch
    from dbcli.diffusion.estimate.meta_base import load_meta_base, place
    from dbcli.diffusion.images import encoded_at_once
    from dbcli.diffusion.precision import precision_on

    base, device = load_meta_base(model.source, model.revision, **dict(model.choices)), torch.device(model.device)
    plain, unloaded, size = footprint.weights_bytes(base), footprint.unloaded_bytes(base), shapes.largest(base)
    with fake_tensors():
        place(base, device)
        return _Before(
            size=size,
            channels=width(base),
            latent_px=round((size[0] * size[1]) ** 0.5) // base.vae_factor,
            latent_shape=(base.latent_channels, base.vae_factor, base.resolution),
            plain_bytes=plain,
            unloaded_bytes=unloaded,
            denoise=footprint.denoising_pass(base, Batch(at_once[0], size, precision_on(precision, device))),
            decode=footprint.decoding_pass(base, Batch(1, size)),
            encode=footprint.encoding_pass(base, Batch(min(at_once[1], encoded_at_once(*size)), size)),
        )
