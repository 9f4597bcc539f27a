"""Which images a step sees: a pure function of the run's seed and the step, so a run resumes anywhere."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import floor

from dbcli.diffusion.noise import permutation_of, seed_for


@dataclass(frozen=True)
class SubjectData:
    """One subject's share of the training data, as indices into the run's posterior and prompt lists.

    photos[i] lists the views (crops, flips) of photo i; photo_prompts[i] is its caption's prompt. class_images may be
    empty (no prior); they share class_prompt.
    """

    photos: Sequence[Sequence[int]]
    photo_prompts: Sequence[int]
    class_images: Sequence[int] = ()
    class_prompt: int | None = None


@dataclass(frozen=True)
class Row:
    """One row of a batch: an image, the prompt it is trained with, and a class image's epoch (from 0)."""

    image: int
    prompt: int
    epoch: int = 0


class BatchSampler:
    """Photos and class images step by step: subjects in turn, each shuffled anew in every epoch of its own.

    The last `rehearsed` subjects were learnt earlier: of all photo rows they get the share `rehearsal_share` in [0, 1),
    spread evenly, and the others the rest.
    """

    def __init__(
        self,
        subjects: Sequence[SubjectData],
        *,
        batch_size: int,
        seed: int,
        rehearsed: int = 0,
        rehearsal_share: float = 0.0,
    ) -> None:
        if not subjects or any(not subject.photos for subject in subjects):
            raise ValueError("every subject needs at least one photo")
        if not 0 <= rehearsed < len(subjects) or not 0 <= rehearsal_share < 1:
            raise ValueError("at least one subject is taught, and the rehearsal leaves rows for it")
        self.subjects = list(subjects)
        self.batch_size = batch_size
        self.seed = seed
        self.taught = len(subjects) - rehearsed
        self.rehearsal_share = rehearsal_share if rehearsed else 0.0
        self._orders: dict[tuple[str, int, int], list[int]] = {}

    def subject_of(self, row: int) -> tuple[int, int]:
        """Whose photo row `row` of a run is: the subject's index, and which of that subject's rows it is (from 0)."""
        # Bresenham's line: the share is kept up to one row at any step, by the number of the row alone.
        before = floor(row * self.rehearsal_share)
        if floor((row + 1) * self.rehearsal_share) > before:
            group = len(self.subjects) - self.taught
            return self.taught + before % group, before // group
        own = row - before
        return own % self.taught, own // self.taught

    def class_epochs(self, rows: int) -> list[int]:
        """How many epochs of its class images each subject begins in the first `rows` photo rows of a run."""
        counts = [0] * len(self.subjects)
        rehearsed = floor(rows * self.rehearsal_share)
        for first, group, count in (
            (0, self.taught, rows - rehearsed),
            (self.taught, len(self.subjects) - self.taught, rehearsed),
        ):
            for index in range(group):
                counts[first + index] = (count - index + group - 1) // group
        return [
            -(-count // len(subject.class_images)) if subject.class_images else 0
            for count, subject in zip(counts, self.subjects, strict=True)
        ]

    def subject_rows(self, step: int) -> list[Row]:
        """The `batch_size` photo rows of a (micro) step."""
        rows = []
        for row in range(step * self.batch_size, (step + 1) * self.batch_size):
            number, ordinal = self.subject_of(row)
            subject = self.subjects[number]
            photo = self._shuffled("photos", number, ordinal, len(subject.photos))
            views = subject.photos[photo]
            view = views[seed_for(self.seed, "view", ordinal, number) % len(views)]
            rows.append(Row(view, subject.photo_prompts[photo]))
        return rows

    def prior_rows(self, step: int) -> list[Row]:
        """One class row beside every photo row whose subject has class images."""
        rows = []
        for row in range(step * self.batch_size, (step + 1) * self.batch_size):
            number, ordinal = self.subject_of(row)
            subject = self.subjects[number]
            count = len(subject.class_images)
            if count and subject.class_prompt is not None:
                image = subject.class_images[self._shuffled("class", number, ordinal, count)]
                rows.append(Row(image, subject.class_prompt, ordinal // count))
        return rows

    def _shuffled(self, purpose: str, subject: int, ordinal: int, count: int) -> int:
        """Which of `count` images comes at an ordinal: every image once an epoch."""
        key = (purpose, subject, ordinal // count)
        if key not in self._orders:
            self._orders = {known: order for known, order in self._orders.items() if known[:2] != key[:2]}
            self._orders[key] = permutation_of(count, self.seed, purpose, key[2], subject)
        return self._orders[key][ordinal % count]
