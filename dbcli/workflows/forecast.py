"""What a recipe will take of this machine, told before it begins: memory at its peak, and time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from dbcli.errors import BaseMissing, Unreachable, UsageError
from dbcli.project.layout import Layout
from dbcli.project.profiles import Profile
from dbcli.project.settings import ProjectSettings, load_settings
from dbcli.project.subjects import Subject
from dbcli.workflows.ladder import below, on_rung, rung_of, rungs
from dbcli.workflows.progress import Progress
from dbcli.workflows.settings import AUTO, default_profile, resolve_profile

if TYPE_CHECKING:
    import torch

    from dbcli.diffusion.speed import Speed
    from dbcli.workflows.train import TrainingPlan

METHODS = ("full", "lora")
ENCODED_AT_ONCE = 4
# Room for what is not counted: the allocator's gaps, and what other programs take meanwhile.
SPARE = 0.05
RANDOM_CROPS = 8
# Measured on the CPU: compiled kernels and the gaps between tensors, whatever the model's size.
WORKING_BYTES = 120_000_000


@dataclass(frozen=True)
class Forecast:
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
class Outlook:
    """The chosen recipe's forecast, and those below it down to the first that fits."""

    forecasts: list[Forecast]
    free_bytes: int
    device: str

    @property
    def fitting(self) -> Forecast | None:
        """The first rung, from the first one down, that this machine has the memory for."""
        return next((one for one in self.forecasts if one.fits), None)

    @property
    def chosen(self) -> Forecast:
        """The first rung that fits, or the smallest."""
        return self.fitting or self.forecasts[-1]


def with_outlook(
    layout: Layout,
    plan: TrainingPlan,
    *,
    sets: Sequence[str],
    flags: Mapping[str, Any],
    progress: Progress,
    asked: bool,
) -> TrainingPlan:
    """The plan with what it will take of this machine, if that was asked for or the profile is `auto`.

    `auto` takes the first rung that fits; a run that goes on from another keeps that run's recipe.
    """
    if plan.profile_name == AUTO and plan.continuation is None:
        outlook = look_for(layout, plan.subjects, sets=sets, flags=flags, progress=progress)
        progress.note(f"This machine has room for: {outlook.chosen.rung}.")
        return replace(plan, profile=outlook.chosen.profile, outlook=outlook)
    if asked and plan.profile.method in METHODS:
        return replace(plan, outlook=look_ahead(layout, plan.subjects, plan.profile))
    return plan


def look_ahead(layout: Layout, subjects: Sequence[Subject], profile: Profile) -> Outlook | None:
    """Forecasts a recipe and, while it does not fit, the rungs below it. Nothing is loaded, fetched or written.

    None where the base is not on this machine and its size not known.
    """
    base = load_settings(layout).base

    def downwards() -> Iterator[Profile]:
        one = profile
        yield one
        while (rung := below(one, other_method=True)) is not None:
            one = on_rung(one, rung, base)
            yield one

    try:
        return _outlook(layout, subjects, downwards())
    except (Unreachable, BaseMissing):
        return None


def look_for(
    layout: Layout,
    subjects: Sequence[Subject],
    *,
    sets: Sequence[str] = (),
    flags: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Outlook:
    """Forecasts the whole ladder from its top to the first rung that fits; what a person set holds on every rung.

    Raises UsageError where the size of the base is not known, or no rung has the method that was asked for.
    """
    base = load_settings(layout).base

    def recipes() -> Iterator[Profile]:
        for rung in rungs():
            own = [f"{key}={value}".lower() for key, value in rung.settings.items()]
            flagged = dict(flags or {})
            wanted = flagged.get("method") or rung.method
            profile = resolve_profile(
                layout, profile=default_profile(base, rung.method), sets=[*own, *sets], flags=flagged
            )[1]
            if profile.method == rung.method == wanted:
                yield profile

    try:
        outlook = _outlook(layout, subjects, recipes())
    except (Unreachable, BaseMissing) as error:
        raise UsageError(
            f"How much {base} takes is not known before it is on this machine.",
            hint="name a profile for the first run: --profile lora",
        ) from error
    if not outlook.forecasts:
        raise UsageError("The profile auto has no recipe of that method.", hint="--method full or --method lora")
    if progress is not None and outlook.fitting is None:
        least, free = outlook.chosen, outlook.free_bytes / 1e9
        progress.warn(f"Even '{least.rung}' takes about {least.peak_bytes / 1e9:.1f} GB; {free:.1f} GB are free.")
    return outlook


def _outlook(layout: Layout, subjects: Sequence[Subject], recipes: Iterator[Profile]) -> Outlook:
    """Forecasts recipes one by one until one fits."""
    from dbcli.diffusion.devices import device_name, free_memory_bytes, pick_device

    settings = load_settings(layout)
    photos = sum(len(subject.photos) for subject in subjects)
    forecasts: list[Forecast] = []
    device, free = pick_device("cpu"), 0
    for profile in recipes:
        device = pick_device(profile.train.device)
        free = free_memory_bytes(device)
        forecasts.append(_forecast(settings, profile, photos, device, free))
        if forecasts[-1].fits:
            break
    return Outlook(forecasts, free, device_name(device))


def _forecast(settings: ProjectSettings, profile: Profile, photos: int, device: torch.device, free: int) -> Forecast:
    from dbcli.diffusion.devices import resident_bytes
    from dbcli.diffusion.imagined import imagine_base, place
    from dbcli.workflows.training_loop import make_trainable

    base = imagine_base(settings.base, settings.revision)
    # As much as a run has loaded of the program itself; what rehearsing needs comes after it.
    own = 0 if device.type == "cuda" else resident_bytes() + WORKING_BYTES
    from dbcli.diffusion import footprint
    from dbcli.diffusion.footprint import Batch
    from dbcli.diffusion.rehearsal import without_memory

    plain = footprint.weights_bytes(base)
    trainable = make_trainable(base, profile)
    size, train, prior = profile.images.resolution or base.resolution, profile.train, profile.prior
    drawn = prior.images if prior.enabled and prior.folder is None else 0
    pictures = photos * _views(profile) + (prior.images if prior.enabled else 0)
    with without_memory():
        trainable = place(base, trainable, device)
        rows = train.batch_size * (2 if prior.enabled else 1)
        step = footprint.training_pass(base, trainable, Batch(rows, size, train.precision))
        held = footprint.weights_bytes(base) + footprint.optimiser_bytes(train.optimizer, trainable)
        held += 4 * trainable.count if train.ema is not None else 0
        denoise = footprint.denoising_pass(base, Batch(min(prior.batch_size, drawn or 1), size))
        decode = footprint.decoding_pass(base, Batch(1, size))
        encode = footprint.encoding_pass(base, Batch(min(ENCODED_AT_ONCE, pictures), size))
    pixels = 0 if device.type == "cuda" else pictures * 3 * size * size * 4
    phases = {
        "class images": plain + max(denoise.peak_bytes, decode.peak_bytes) if drawn else 0,
        "encode": plain + pixels + encode.peak_bytes,
        # On the CPU half of what encoding held comes back in pieces too small for what training asks for.
        "train": held + step.peak_bytes + (0 if device.type == "cuda" else encode.peak_bytes // 2),
    }
    speed = _speed(device, base.unet.config.block_out_channels[0], rows, size // base.vae_factor, train.precision)  # type: ignore[index,union-attr]
    step_seconds = train.accumulation * speed.seconds(step)
    seconds = step_seconds * train.steps + -(-pictures // ENCODED_AT_ONCE) * speed.seconds(encode)
    seconds += -(-drawn // prior.batch_size) * prior.steps * speed.seconds(denoise) + drawn * speed.seconds(decode)
    peak = max(phases.values())
    rung = rung_of(profile)
    name = rung.name if rung is not None else profile.method
    return Forecast(name, profile, own + peak, phases, step_seconds, seconds, peak * (1 + SPARE) <= free)


def _views(profile: Profile) -> int:
    return (RANDOM_CROPS if profile.images.crop == "random" else 1) * (2 if profile.images.flip else 1)


def _speed(device: torch.device, channels: int, rows: int, size: int, precision: str) -> Speed:
    import torch

    from dbcli.diffusion.speed import measured_speed
    from dbcli.diffusion.trainer import AUTOCAST

    dtype = AUTOCAST.get(precision, torch.float32)
    return measured_speed(device, channels=channels, rows=rows, size=size, dtype=dtype)
