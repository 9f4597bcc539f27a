"""What a recipe will take of this machine, told before it begins: memory at its peak, and time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dbcli.errors import BaseMissing, Unreachable
from dbcli.project.layout import Layout
from dbcli.project.profiles import Profile
from dbcli.project.settings import ProjectSettings, load_settings
from dbcli.project.subjects import Subject
from dbcli.workflows.ladder import below, on_rung, rung_of
from dbcli.workflows.progress import Progress

if TYPE_CHECKING:
    import torch

    from dbcli.diffusion.speed import Speed

ENCODED_AT_ONCE = 4
# Room for what is not counted: the allocator's gaps, and what other programs take meanwhile.
SPARE = 0.05
RANDOM_CROPS = 8


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
        """The first rung, from the chosen one down, that this machine has the memory for."""
        return next((one for one in self.forecasts if one.fits), None)


def look_ahead(
    layout: Layout, subjects: Sequence[Subject], profile: Profile, progress: Progress, *, other_method: bool = True
) -> Outlook | None:
    """Forecasts a recipe and, while it does not fit, the rungs below it. Nothing is loaded, fetched or written.

    None where the base is not on this machine and its size not known.
    """
    from dbcli.diffusion.devices import device_name, free_memory_bytes, pick_device

    settings, device = load_settings(layout), pick_device(profile.train.device)
    free = free_memory_bytes(device)
    photos = sum(len(subject.photos) for subject in subjects)
    forecasts: list[Forecast] = []
    wanted: Profile | None = profile
    with progress.stage("Looking ahead", 1) as stage:
        while wanted is not None and not (forecasts and forecasts[-1].fits):
            try:
                forecasts.append(_forecast(settings, wanted, photos, device, free))
            except (Unreachable, BaseMissing):
                return None
            rung = below(wanted, other_method=other_method)
            wanted = None if rung is None else on_rung(wanted, rung, settings.base)
        stage.advance()
    return Outlook(forecasts, free, device_name(device))


def _forecast(settings: ProjectSettings, profile: Profile, photos: int, device: torch.device, free: int) -> Forecast:
    from dbcli.diffusion import footprint
    from dbcli.diffusion.devices import resident_bytes
    from dbcli.diffusion.footprint import Batch
    from dbcli.diffusion.imagined import imagine_base, place
    from dbcli.diffusion.rehearsal import without_memory
    from dbcli.workflows.training_loop import make_trainable

    base = imagine_base(settings.base, settings.revision)
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
    own = 0 if device.type == "cuda" else resident_bytes()
    phases = {
        "class images": plain + max(denoise.peak_bytes, decode.peak_bytes) if drawn else 0,
        "encode": plain + pixels + encode.peak_bytes,
        "train": held + step.peak_bytes,
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
