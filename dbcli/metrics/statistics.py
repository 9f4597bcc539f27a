"""How sure a mean score is: 95 % intervals over subjects and prompts.

The same prompts come back for every subject, so the two are crossed, and a score should hold for other subjects and
other prompts. Draws: the two-way ("pigeonhole") bootstrap of Owen (2007), which resamples subjects and prompts
independently. On its own that counts the noise of a single cell three times and knows nothing of small samples, so the
draws are rescaled to the unbiased variance of a two-way random-effects layout and to Student's t in place of the normal
law (the small-sample correction of Hesterberg, 2015). The shape, skew included, stays the bootstrap's.

One or two subjects are no sample of subjects: with a single degree of freedom an interval would cover every score there
is. So theirs is over prompts alone, and holds for these subjects.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
FEW_SUBJECTS, LEAST_SUBJECTS = 5, 3
SEED, RESAMPLES = 0, 2000
TAIL = (1 - 0.95) / 2


@dataclass(frozen=True)
class Cell:
    """One score of one subject under one prompt; `weight` counts the images (or pairs) it is a mean of."""

    subject: str
    prompt: str
    value: float
    weight: float = 1.0


@dataclass(frozen=True)
class Interval:
    """A mean and the ends of its interval; the ends are None where one or two subjects have a single cell each."""

    value: float
    low: float | None
    high: float | None


def bootstrap_interval(cells: Sequence[Cell], *, seed: int = SEED, resamples: int = RESAMPLES) -> Interval:
    """Mean over subjects with its 95 % interval; one or two subjects give an interval over their prompts.

    Raises ValueError without cells. The same seed gives the same interval, whatever the order of the cells.
    """
    if not cells:
        raise ValueError("an interval needs at least one score")
    values, weights = _matrix(cells)
    value = float(_subject_means(values, weights).mean())
    if len(cells) == len(values) < LEAST_SUBJECTS:
        return Interval(value, None, None)
    variance, degrees = _variance_of_mean(values, weights)
    random = np.random.default_rng(seed)
    if len(values) < LEAST_SUBJECTS:
        # Each subject's prompts by themselves: what prompts and cells spread is in the variance either way.
        present = [(row[None, own > 0], own[None, own > 0]) for row, own in zip(values, weights, strict=True)]
        draws = np.mean([_two_way_draws(*cells_of_one, random, resamples) for cells_of_one in present], axis=0)
    else:
        draws = _two_way_draws(values, weights, random, resamples)
    spread = float(draws.std(ddof=1))
    if variance <= 0 or spread <= 1e-15:
        return Interval(value, value, value)
    stretch = math.sqrt(variance) / spread * student_quantile(1 - TAIL, degrees) / NormalDist().inv_cdf(1 - TAIL)
    low, high = np.quantile(draws - draws.mean(), [TAIL, 1 - TAIL]) * stretch
    return Interval(value, value + float(low), value + float(high))


def bounded_interval(cells: Sequence[Cell], least: float = 0.0, most: float = 1.0) -> dict[str, float | None]:
    """Their mean as "value", with the ends "low" and "high" of its interval, none below `least` or above `most`."""
    found = bootstrap_interval(cells)
    low = None if found.low is None else max(found.low, least)
    high = None if found.high is None else min(found.high, most)
    return {"value": found.value, "low": low, "high": high}


@lru_cache(maxsize=64)
def student_quantile(probability: float, degrees: float) -> float:
    """Quantile of Student's t for any real `degrees` > 0 and 0.5 <= probability < 1, to about 1e-5 relative.

    With t = sqrt(degrees) tan(angle) the density becomes cos(angle) ** (degrees - 1) on a bounded range.
    """
    angles = np.linspace(0.0, math.pi / 2, 20_001)
    density = np.cos(angles) ** max(degrees - 1, 0.0)
    area = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2)])
    angle = float(np.interp((probability - 0.5) * 2 * area[-1], area, angles))
    return math.sqrt(degrees) * math.tan(angle)


def _matrix(cells: Sequence[Cell]) -> tuple[Array, Array]:
    """Values and weights, both [subjects, prompts]; weight 0 where a subject lacks a prompt."""
    subjects = {name: row for row, name in enumerate(sorted({cell.subject for cell in cells}))}
    prompts = {name: column for column, name in enumerate(sorted({cell.prompt for cell in cells}))}
    values = np.zeros((len(subjects), len(prompts)))
    weights = np.zeros_like(values)
    for cell in cells:
        place = subjects[cell.subject], prompts[cell.prompt]
        if weights[place] > 0:
            raise ValueError(f"two scores for subject {cell.subject!r} and prompt {cell.prompt!r}")
        if not cell.weight > 0:
            raise ValueError(f"weight {cell.weight} of {cell.subject!r}, {cell.prompt!r} is not positive")
        values[place], weights[place] = cell.value, cell.weight
    return values, weights


def _subject_means(values: Array, weights: Array) -> Array:
    return np.asarray((values * weights).sum(axis=1) / weights.sum(axis=1))


def _two_way_draws(values: Array, weights: Array, random: np.random.Generator, resamples: int) -> Array:
    """Bootstrap draws of the mean over subjects, [resamples]; a draw that leaves no cell is left out."""
    subjects, prompts = values.shape
    subject_counts = random.multinomial(subjects, np.full(subjects, 1 / subjects), resamples)
    prompt_counts = random.multinomial(prompts, np.full(prompts, 1 / prompts), resamples)
    totals = prompt_counts @ weights.T
    sums = prompt_counts @ (weights * values).T
    present = subject_counts * (totals > 0)
    means = sums / np.where(totals > 0, totals, 1)
    counts = present.sum(axis=1)
    kept = counts > 0
    return np.asarray((present * means).sum(axis=1)[kept] / counts[kept])


def _variance_of_mean(values: Array, weights: Array) -> tuple[float, float]:
    """Unbiased variance of the mean over subjects and its degrees of freedom (Satterthwaite)."""
    shares = weights / weights.sum(axis=1, keepdims=True)
    means = _subject_means(values, weights)
    subjects = len(values)
    if subjects == 1:
        prompts = values.shape[1]
        per_prompt = float((shares * (values - means) ** 2).sum()) * prompts / (prompts - 1)
        return per_prompt * float((shares**2).sum()), float(prompts - 1)
    difficulty, noise, noise_degrees = _prompts_and_noise(values, weights > 0, means)
    from_noise = noise * float((shares**2).sum()) / subjects**2
    from_subjects, subject_degrees = float(means.var(ddof=1)) / subjects, float(subjects - 1)
    if subjects < LEAST_SUBJECTS or (subjects < FEW_SUBJECTS and from_noise > from_subjects):
        # A few subjects that happen to agree are no proof that subjects do: the cells' own noise is the
        # floor. With more of them the variance between their means is sure enough.
        from_subjects, subject_degrees = from_noise, noise_degrees
    from_prompts = difficulty * float((shares.mean(axis=0) ** 2).sum())
    total = from_subjects + from_prompts
    if total <= 0:
        return 0.0, subject_degrees
    spread = from_subjects**2 / subject_degrees + from_prompts**2 / max(values.shape[1] - 1, 1)
    return total, total**2 / spread


def _prompts_and_noise(values: Array, present: NDArray[np.bool_], means: Array) -> tuple[float, float, float]:
    """Two-way analysis of variance over the cells that are present.

    Variance of the prompts' own difficulty, variance of one cell's noise, and the noise's degrees of freedom. Where
    subjects share no prompts, difficulty and noise cannot be told apart and all of it counts as noise.
    """
    deviations = np.where(present, values - means[:, None], 0.0)
    counts = present.sum(axis=0)
    prompt_means = deviations.sum(axis=0) / counts
    residuals = np.where(present, deviations - prompt_means, 0.0)
    cells, (subjects, prompts) = int(present.sum()), values.shape
    residual_degrees = cells - subjects - prompts + 1
    if prompts < 2 or residual_degrees < 1:
        within_degrees = max(cells - subjects, 1)
        return 0.0, float((deviations**2).sum()) / within_degrees, within_degrees
    noise = float((residuals**2).sum()) / residual_degrees
    between = float((counts * prompt_means**2).sum()) / (prompts - 1)
    return max(0.0, (between - noise) / (cells / prompts)), noise, residual_degrees
