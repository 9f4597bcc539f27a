"""What fits on GPUs of 8, 12, 16 and 24 GB by the estimate of `train --dry-run`, and what `--profile auto` takes there.

    python benchmarks/fitting.py sd-v1-4 XL/folder sdxl

Nothing is loaded and no GPU is needed: every phase of a run is gone through on tensors without memory, as on a GPU that
computes in bfloat16: the autoencoder and frozen text encoders wait in RAM during the steps. Without bitsandbytes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from typing import Any

from dbcli.project.settings.profile_settings import FROZEN, Profile

CARDS_GB = (8, 12, 16, 24)
# What the driver and other programs take of a card's memory, in GB, and what is left free of the rest.
TAKEN_GB, SPARE = 0.6, 0.05


def recipes(base: str) -> Iterator[tuple[str, Profile]]:
    """The rungs of the ladder of `--profile auto`, as a GPU without bitsandbytes has them: their names and settings."""
    from dbcli.project.settings.profiles import load_profile, resolve
    from dbcli.workflows.memory.ladder import LADDER
    from dbcli.workflows.setup.effective_settings import default_profile

    seen: list[Profile] = []
    for rung in LADDER:
        if rung.needs is None and not rung.for_its_method:
            name = default_profile(base, rung.method)
            profile = resolve([("", load_profile(name)), ("", dict(rung.settings))])
            values = profile.model_dump() | {"method": rung.method}
            profile = Profile.model_validate(values, context=FROZEN)
            if profile not in seen:
                seen.append(profile)
                yield f"{rung.name} (`{name}`)", profile


def before_bytes(source: str, profile: Profile) -> int:
    """The peak of what comes before the steps: class images and encoding, on the whole base."""
    from dbcli.diffusion.estimate import footprint
    from dbcli.diffusion.estimate.cost import fake_tensors
    from dbcli.diffusion.estimate.footprint import Batch
    from dbcli.diffusion.images import encoded_at_once

    base, device = _placed(source)
    size = (profile.images.resolution or base.resolution,) * 2
    with fake_tensors():
        device(base)
        weights = footprint.weights_bytes(base)
        passes = (
            footprint.denoising_pass(base, Batch(profile.prior.batch_size, size, "bf16")),
            footprint.decoding_pass(base, Batch(1, size)),
            footprint.encoding_pass(base, Batch(encoded_at_once(*size), size)),
        )
    return weights + max(one.peak_bytes for one in passes)


def step_bytes(source: str, profile: Profile) -> int:
    """The peak of the steps."""
    from dbcli.diffusion.devices import idle_in_training
    from dbcli.diffusion.estimate import footprint
    from dbcli.diffusion.estimate.cost import fake_tensors
    from dbcli.diffusion.estimate.meta_base import placed
    from dbcli.workflows.models.trainable import make_trainable

    base, device = _placed(source)
    trainable = make_trainable(base, profile, ())
    size, train = (profile.images.resolution or base.resolution,) * 2, profile.train
    with fake_tensors():
        device(base)
        trainable = placed(base, trainable)
        rows = train.batch_size * (2 if profile.prior.enabled else 1)
        step = footprint.training_pass(
            base, trainable, footprint.Batch(rows, size, train.precision), fused=train.fused_backward
        )
        idle = idle_in_training(base, trains_text=trainable.trains_text)
        weights = footprint.weights_bytes(base) - footprint.network_bytes(idle)
        return weights + footprint.optimiser_bytes(train.optimizer, trainable) + step.peak_bytes


def _placed(source: str) -> tuple[Any, Any]:
    import torch

    from dbcli.diffusion.estimate.meta_base import load_meta_base, place

    return load_meta_base(source, None), lambda base: place(base, torch.device("cpu"))


def rows(source: str) -> list[tuple[str, float, float]]:
    """Each rung with the GB of its two phases."""
    found, before = [], {}
    for name, profile in recipes(source):
        key = (profile.images.resolution, profile.prior.batch_size)
        if key not in before:
            before[key] = before_bytes(source, profile) / 1e9
        found.append((name, before[key], step_bytes(source, profile) / 1e9))
        print(source, *found[-1], file=sys.stderr, flush=True)
    return found


def fits(peak_gb: float, card_gb: float) -> bool:
    """Whether a peak is taken to fit on a card whose memory is sold in GiB."""
    return peak_gb * (1 + SPARE) <= card_gb * 2**30 / 1e9 - TAKEN_GB


def table(source: str, found: list[tuple[str, float, float]]) -> str:
    """The rungs as Markdown, and in the last line what `auto` takes on each card."""
    heads = " | ".join(f"{card} GB" for card in CARDS_GB)
    lines = [f"| {source} | before the steps | steps | {heads} |", "|---" * (3 + len(CARDS_GB)) + "|"]
    first: dict[int, str] = {}
    for name, before, step in found:
        cells = []
        for card in CARDS_GB:
            good = fits(max(before, step), card)
            if good:
                first.setdefault(card, name)
            cells.append("yes" if good else "–")
        lines.append(f"| {name} | {before:.1f} GB | {step:.1f} GB | {' | '.join(cells)} |")
    lines.append(f"| **auto** | | | {' | '.join(first.get(card, 'nothing') for card in CARDS_GB)} |")
    return "\n".join(lines)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("bases", nargs="+", help="known names, folders or files")
    for source in options.parse_args().bases:
        print(table(source, rows(source)), end="\n\n", flush=True)


if __name__ == "__main__":
    main()
