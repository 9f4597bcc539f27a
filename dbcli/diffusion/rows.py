"""Which pictures a step sees: a pure function of the run's seed and the step, so a run resumes anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
    """One row of a batch: a picture and the prompt it is trained with."""

    picture: int
    prompt: int


class RowPlan:
    """Deals photos and class images to steps: subjects in turn, each in shuffled rounds of its own."""

    def __init__(self, materials: Sequence[Material], *, batch_size: int, seed: int) -> None:
        if not materials or any(not material.photos for material in materials):
            raise ValueError("every subject needs at least one photo")
        self.materials = list(materials)
        self.batch_size = batch_size
        self.seed = seed
        self._orders: dict[tuple[str, int, int], list[int]] = {}

    def subject_rows(self, step: int) -> list[Row]:
        """The `batch_size` photo rows of a (micro) step."""
        rows = []
        for count in range(step * self.batch_size, (step + 1) * self.batch_size):
            subject, turn = count % len(self.materials), count // len(self.materials)
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
            subject, turn = count % len(self.materials), count // len(self.materials)
            material = self.materials[subject]
            if material.class_images and material.class_prompt is not None:
                image = self._dealt("class", subject, turn, len(material.class_images))
                rows.append(Row(material.class_images[image], material.class_prompt))
        return rows

    def _dealt(self, purpose: str, subject: int, turn: int, count: int) -> int:
        """The picture dealt at a turn: round after round, every picture once a round."""
        key = (purpose, subject, turn // count)
        if key not in self._orders:
            self._orders = {known: order for known, order in self._orders.items() if known[:2] != key[:2]}
            self._orders[key] = permutation_of(count, self.seed, purpose, key[2], subject)
        return self._orders[key][turn % count]
