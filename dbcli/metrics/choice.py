"""Which checkpoint is best, by a stated rule on fidelity and editability, and when to stop looking. No torch."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean, stdev

RULE = (
    "Checkpoints half of whose images, or more, are nearer to one photo than any two photos are to each other copy "
    "the photos and are left out, unless all do. "
    "Of the rest, those that no other beats on both scores form the front; fidelity and editability are each "
    "stretched to 0..1 over the front, or over the score's own noise where that is wider, and the checkpoint "
    "with the highest sum wins: the knee, the point furthest from the straight line between the front's ends. "
    "Among equals the higher fidelity, then the earlier step."
)


@dataclass(frozen=True)
class Probe:
    """The scores of one checkpoint: fidelity (DINO to the photos) and editability (CLIP-T)."""

    step: int
    fidelity: float
    editability: float
    copying: bool = False


@dataclass(frozen=True)
class Choice:
    """The step that was picked, the steps on the front, and the rule in words."""

    step: int
    front: tuple[int, ...]
    rule: str = RULE


def pick_checkpoint(probes: Sequence[Probe], *, noise: tuple[float, float] = (0.0, 0.0)) -> Choice:
    """The knee of the front of fidelity against editability. Raises ValueError without probes.

    `noise` is the difference in fidelity and in editability that chance alone makes (`paired_noise`): without
    it a hundredth that means nothing would weigh as much as all that was learnt.
    """
    if not probes:
        raise ValueError("no probe to choose from")
    ordered = sorted(probes, key=lambda probe: probe.step)
    honest = [probe for probe in ordered if not probe.copying]
    front = [probe for probe in (honest or ordered) if not any(_beats(other, probe) for other in honest or ordered)]
    fidelity = _stretched([probe.fidelity for probe in front], noise[0])
    editability = _stretched([probe.editability for probe in front], noise[1])
    sums = [round(a + b, 12) for a, b in zip(fidelity, editability, strict=True)]
    best = max(range(len(front)), key=lambda index: (sums[index], front[index].fidelity, -front[index].step))
    return Choice(front[best].step, tuple(probe.step for probe in front))


def paired_noise(rows: Sequence[Sequence[float]]) -> float:
    """How far two checkpoints' mean scores lie apart by chance: the standard error of a paired difference.

    `rows` are the scores of the same images (prompts and seeds), one row per checkpoint in the order of steps;
    neighbours are paired. 0 for fewer than two rows or two images: then nothing is known of the noise.
    """
    errors = []
    for before, after in pairwise(rows):
        differences = [b - a for a, b in zip(before, after, strict=True)]
        if len(differences) > 1:
            errors.append(stdev(differences) / math.sqrt(len(differences)))
    return math.sqrt(fmean([error**2 for error in errors])) if errors else 0.0


def should_stop(probes: Sequence[Probe], *, patience: int = 3, margin: float = 0.0) -> bool:
    """True when the last `patience` probes improved neither the best fidelity nor the best editability by `margin`.

    Probes that copy the photos count as no improvement of fidelity.
    """
    ordered = sorted(probes, key=lambda probe: probe.step)
    if len(ordered) <= patience:
        return False
    before, recent = ordered[:-patience], ordered[-patience:]
    best_editability = max(probe.editability for probe in before)
    best_fidelity = max((probe.fidelity for probe in before if not probe.copying), default=-math.inf)
    return not any(
        probe.editability > best_editability + margin or (not probe.copying and probe.fidelity > best_fidelity + margin)
        for probe in recent
    )


def _beats(a: Probe, b: Probe) -> bool:
    """Whether `a` is at least as good as `b` on both scores and better on one."""
    as_good = a.fidelity >= b.fidelity and a.editability >= b.editability
    return as_good and (a.fidelity, a.editability) != (b.fidelity, b.editability)


def _stretched(values: Sequence[float], noise: float) -> list[float]:
    low, high = min(values), max(values)
    width = max(high - low, noise)
    return [0.0 if width == 0 else (value - low) / width for value in values]
