"""Which pictures a step sees: a pure function of the run's seed and the step, so a run resumes anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import floor

from dbcli.diffusion.noise import permutation_of, seed_for


@dataclass(frozen=True)
class Material:
    """One subject's share of the training pictures, as indices into the run's posterior and prompt lists.

    photos[i] lists the views (crops, flips) of photo i; photo_prompts[i] is its caption's prompt. class_images
    may be empty (no prior); they share class_prompt.
    """

    photos: Sequence[Sequence[int]]
    photo_prompts: Sequence[int]
    class_images: Sequence[int] = ()
    class_prompt: int | None = None


@dataclass(frozen=True)
class Row:
    """One row of a batch: a picture, the prompt it is trained with, and how often a class image came before."""

    image: int
    prompt: int
    turn: int = 0


class BatchSampler:
    """Deals photos and class images to steps: subjects in turn, each in shuffled rounds of its own.

    The last `rehearsed` materials are subjects learnt earlier: of all photo rows they get the share
    `rehearsal_share` in [0, 1), spread evenly, and the others the rest.
    """

    def __init__(
        self,
        materials: Sequence[Material],
        *,
        batch_size: int,
        seed: int,
        rehearsed: int = 0,
        rehearsal_share: float = 0.0,
    ) -> None:
        if not materials or any(not material.photos for material in materials):
            raise ValueError("every subject needs at least one photo")
        if not 0 <= rehearsed < len(materials) or not 0 <= rehearsal_share < 1:
            raise ValueError("at least one subject is taught, and the rehearsal leaves rows for it")
        self.materials = list(materials)
        self.batch_size = batch_size
        self.seed = seed
        self.taught = len(materials) - rehearsed
        self.rehearsal_share = rehearsal_share if rehearsed else 0.0
        self._orders: dict[tuple[str, int, int], list[int]] = {}

    def place(self, count: int) -> tuple[int, int]:
        """Whose row the `count`-th photo row of a run is: the subject's index, and its how manieth (from 0)."""
        # Bresenham's line: the share is kept up to one row at any step, by the number of the row alone.
        before = floor(count * self.rehearsal_share)
        if floor((count + 1) * self.rehearsal_share) > before:
            group = len(self.materials) - self.taught
            return self.taught + before % group, before // group
        own = count - before
        return own % self.taught, own // self.taught

    def rounds(self, rows: int) -> list[int]:
        """How many rounds of its class images each subject begins in the first `rows` photo rows of a run."""
        turns = [0] * len(self.materials)
        rehearsed = floor(rows * self.rehearsal_share)
        for first, group, count in (
            (0, self.taught, rows - rehearsed),
            (self.taught, len(self.materials) - self.taught, rehearsed),
        ):
            for index in range(group):
                turns[first + index] = (count - index + group - 1) // group
        return [
            -(-turn // len(material.class_images)) if material.class_images else 0
            for turn, material in zip(turns, self.materials, strict=True)
        ]

    def subject_rows(self, step: int) -> list[Row]:
        """The `batch_size` photo rows of a (micro) step."""
        rows = []
        for count in range(step * self.batch_size, (step + 1) * self.batch_size):
            subject, turn = self.place(count)
            material = self.materials[subject]
            photo = self._dealt("photos", subject, turn, len(material.photos))
            views = material.photos[photo]
            view = views[seed_for(self.seed, "view", turn, subject) % len(views)]
            rows.append(Row(view, material.photo_prompts[photo]))
        return rows

    def prior_rows(self, step: int) -> list[Row]:
        """One class row beside every photo row whose subject has class images."""
        rows = []
        for count in range(step * self.batch_size, (step + 1) * self.batch_size):
            subject, turn = self.place(count)
            material = self.materials[subject]
            if material.class_images and material.class_prompt is not None:
                image = self._dealt("class", subject, turn, len(material.class_images))
                rows.append(
                    Row(material.class_images[image], material.class_prompt, turn // len(material.class_images))
                )
        return rows

    def _dealt(self, purpose: str, subject: int, turn: int, count: int) -> int:
        """The picture dealt at a turn: round after round, every picture once a round."""
        key = (purpose, subject, turn // count)
        if key not in self._orders:
            self._orders = {known: order for known, order in self._orders.items() if known[:2] != key[:2]}
            self._orders[key] = permutation_of(count, self.seed, purpose, key[2], subject)
        return self._orders[key][turn % count]
