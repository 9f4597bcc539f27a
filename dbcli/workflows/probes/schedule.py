"""When a run is probed, and with how many images: settled from its settings alone, so that every resume agrees.

Costs are counted in forward passes of one image through the UNet. A training row is a forward pass, a backward pass
worth two, and its share of the optimiser's step; an image is two passes per sampler step (guidance), and decoding.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from dbcli.counts import counted
from dbcli.project.runs.probe_files import ProbePlan
from dbcli.project.runs.run_store import RunRecord
from dbcli.project.settings.profile_settings import Profile
from dbcli.workflows.memory.amounts import rows_of

PASSES_A_TRAINING_ROW = 4
PASSES_TO_DECODE = 4
MOST_PROBES, MOST_PROBES_TO_STOP = 8, 24
# Fewer points than this are hardly a front; then each probe rather has fewer images.
ENOUGH_PROBES = 5
# A knee needs two points at least.
LEAST_PROBES = 2


def plan_of(record: RunRecord, profile: Profile) -> ProbePlan:
    """The probes that a run's settings ask for."""
    classes = len({subject.class_noun for subject in record.shown})
    return plan_probes(profile, subjects=len(record.shown), classes=classes)


def plan_probes(profile: Profile, *, subjects: int, classes: int) -> ProbePlan:
    """The steps after which a run of these settings is probed; none where too few fit into the budget.

    `classes` counts the distinct class nouns. The last step is always among them. `probe.every` is obeyed whatever
    it costs.
    """
    settings, steps = profile.probe, profile.train.steps
    if settings.every is not None:
        return ProbePlan(
            steps=_spread(steps, settings.every),
            seeds=settings.seeds,
            why=f"every {settings.every} steps, as requested",
        )
    wanted = settings.patience + 3 if settings.stop == "auto" else ENOUGH_PROBES
    most = MOST_PROBES_TO_STOP if settings.stop == "auto" else MOST_PROBES
    affordable = settings.budget * _passes_of_training(profile) / _passes_per_image(profile)
    for seeds in range(settings.seeds, 0, -1):
        images = images_per_probe(profile, subjects=subjects, classes=classes, seeds=seeds)
        probes = min(int(affordable / images), most, steps)
        if probes >= (wanted if seeds > 1 else LEAST_PROBES):
            found = _spread(steps, _rounded(math.ceil(steps / probes)))
            why = f"{len(found)} probes of {counted(images, 'image')} fit into {settings.budget:.0%} of the steps' time"
            return ProbePlan(steps=found, seeds=seeds, why=why)
    why = f"a run of {steps} steps has no room for {LEAST_PROBES} probes in {settings.budget:.0%} of its time"
    return ProbePlan(why=why)


def images_per_probe(profile: Profile, *, subjects: int, classes: int, seeds: int) -> int:
    """Each subject as it was trained and in each scene, and each class once, all with so many seeds."""
    return seeds * (subjects * (1 + len(profile.probe.prompts)) + classes)


@dataclass(frozen=True)
class Cost:
    """What probing has cost so far, in seconds: all of it, one probe as a rule, and one training step beside it."""

    spent: float
    usual: float | None
    step_seconds: float | None


def too_dear(cost: Cost, *, since: int, remaining: Sequence[int], budget: float) -> str | None:
    """Why the first of the planned steps that remain is left out, in words; None if it is to be probed.

    `since` is the step of the probe before, 0 if there is none. Where the budget allows fewer probes than remain, those
    that are made lie evenly between `since` and the run's last step, which is among them: without it nothing can be
    chosen.
    """
    if cost.usual is None or cost.step_seconds is None:
        return None
    last = remaining[-1]
    of_steps = last * cost.step_seconds
    count = max(0, math.floor((budget * of_steps - cost.spent) / cost.usual))
    if count >= len(remaining) or (count and remaining[0] - since >= (last - since) / count):
        return None
    return (
        f"{budget:.0%} of {of_steps:.1f} s of steps leaves room for {count} of the {len(remaining)} remaining probes, "
        f"{cost.usual:.1f} s each"
    )


def _passes_of_training(profile: Profile) -> float:
    train = profile.train
    rows = rows_of(profile) * train.accumulation
    return float(train.steps * rows * PASSES_A_TRAINING_ROW)


def _passes_per_image(profile: Profile) -> int:
    guided = profile.draw.guidance != 1.0
    return profile.probe.steps * (2 if guided else 1) + PASSES_TO_DECODE


def _rounded(every: int) -> int:
    """The next number a person would have chosen: two digits and zeros."""
    unit: int = 10 ** max(0, len(str(every)) - 2)
    if every > 20:
        unit = max(unit, 5)
    return math.ceil(every / unit) * unit


def _spread(steps: int, every: int) -> list[int]:
    return [*range(every, steps, every), steps]
