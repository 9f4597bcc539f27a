"""When a run is probed, and with how many pictures: settled from its settings alone, so that every resume agrees.

Costs are counted in forward passes of one picture through the UNet. A training row is a forward pass, a backward pass
worth two, and its share of the optimiser's step; a drawn picture is two passes a sampler step (guidance), and decoding.
"""

from __future__ import annotations

import math

from dbcli.project.probe_files import ProbePlan
from dbcli.project.profiles import Profile
from dbcli.workflows.inversion import has_prior

PASSES_A_TRAINING_ROW = 4
PASSES_TO_DECODE = 4
MOST_PROBES, MOST_PROBES_TO_STOP = 8, 24
# Fewer points than this are hardly a front; then each probe rather has fewer pictures.
ENOUGH_PROBES = 5
# A knee needs two points at least.
LEAST_PROBES = 2


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
            why=f"every {settings.every} steps, as asked for",
        )
    wanted = settings.patience + 3 if settings.stop == "auto" else ENOUGH_PROBES
    most = MOST_PROBES_TO_STOP if settings.stop == "auto" else MOST_PROBES
    affordable = settings.budget * _passes_of_training(profile) / _passes_a_picture(profile)
    for seeds in range(settings.seeds, 0, -1):
        pictures = pictures_a_probe(profile, subjects=subjects, classes=classes, seeds=seeds)
        probes = min(int(affordable / pictures), most, steps)
        if probes >= (wanted if seeds > 1 else LEAST_PROBES):
            found = _spread(steps, _rounded(math.ceil(steps / probes)))
            why = f"{len(found)} probes of {pictures} pictures fit into {settings.budget:.0%} of the steps' time"
            return ProbePlan(steps=found, seeds=seeds, why=why)
    why = f"a run of {steps} steps has no room for {LEAST_PROBES} probes in {settings.budget:.0%} of its time"
    return ProbePlan(why=why)


def pictures_a_probe(profile: Profile, *, subjects: int, classes: int, seeds: int) -> int:
    """Each subject as it was trained and in each scene, and each class once, all with so many seeds."""
    return seeds * (subjects * (1 + len(profile.probe.prompts)) + classes)


def too_dear(
    step: int, *, last: int, spent: float, dearest: float | None, step_seconds: float | None, budget: float
) -> str | None:
    """Why the probe after `step` would break the budget by what was measured so far, in words; None if it fits.

    `spent` and `dearest` are the seconds of all probes and of the dearest; `step_seconds` is one step's. A probe on the
    way leaves room for the last one, without which nothing can be chosen.
    """
    if dearest is None or step_seconds is None:
        return None
    allowed = budget * last * step_seconds
    needed = spent + dearest * (1 if step == last else 2)
    if needed <= allowed:
        return None
    return f"{needed:.1f} s of probing would be more than {budget:.0%} of {last * step_seconds:.1f} s of steps"


def _passes_of_training(profile: Profile) -> float:
    train = profile.train
    rows = train.batch_size * (2 if has_prior(profile) else 1) * train.accumulation
    return float(train.steps * rows * PASSES_A_TRAINING_ROW)


def _passes_a_picture(profile: Profile) -> int:
    guided = profile.draw.guidance != 1.0
    return profile.probe.steps * (2 if guided else 1) + PASSES_TO_DECODE


def _rounded(every: int) -> int:
    """The next number a person would have chosen: two digits and zeros."""
    unit = 10 ** max(0, len(str(every)) - 2)
    if every > 20:
        unit = max(unit, 5)
    return math.ceil(every / unit) * unit


def _spread(steps: int, every: int) -> list[int]:
    return [*range(every, steps, every), steps]
