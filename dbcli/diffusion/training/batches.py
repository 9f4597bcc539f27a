"""Which images a step sees: a pure function of the run's seed and the step, so a run resumes anywhere."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import floor

from dbcli.diffusion.noise import SEED_RANGE, permutation_of, seed_for


@dataclass(frozen=True)
class SentenceData:
    """One sentence that a subject is taught with, as indices into the run's prompt and posterior lists.

    photo_prompts[i] is the sentence as photo i has it, captioned_prompts[i] as it goes on with the photo's caption.
    class_images may be empty (no prior); they share class_prompt, the sentence without the identifier, and, where a
    teacher says what it sees in them without any, empty_prompt.
    """

    photo_prompts: Sequence[int]
    captioned_prompts: Sequence[int]
    class_images: Sequence[int] = ()
    class_prompt: int | None = None
    empty_prompt: int | None = None


@dataclass(frozen=True)
class SubjectData:
    """One subject's share of the training data: photos[i] lists the views (crops, flips) of photo i, by index."""

    photos: Sequence[Sequence[int]]
    sentences: Sequence[SentenceData]


@dataclass(frozen=True)
class Row:
    """One row of a batch: an image, the prompt it is trained with, and a class image's epoch (from 0)."""

    image: int
    prompt: int
    epoch: int = 0


class BatchSampler:
    """Photos and class images step by step: subjects in turn, each shuffled anew in every epoch of its own.

    Each photo row has one of its subject's sentences, all of them equally often, and in the share `caption_share` of
    rows the photo's caption behind it; the class row beside it has the same sentence, or in the share `empty_share` of
    rows the empty prompt.

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
        caption_share: float = 1.0,
        empty_share: float = 0.0,
    ) -> None:
        if not subjects or any(not subject.photos or not subject.sentences for subject in subjects):
            raise ValueError("every subject needs at least one photo and one sentence")
        if not 0 <= rehearsed < len(subjects) or not 0 <= rehearsal_share < 1:
            raise ValueError("at least one subject is taught, and the rehearsal leaves rows for it")
        self.subjects = list(subjects)
        self.batch_size = batch_size
        self.seed = seed
        self.taught = len(subjects) - rehearsed
        self.rehearsal_share = rehearsal_share if rehearsed else 0.0
        self.caption_share, self.empty_share = caption_share, empty_share
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

    def class_epochs(self, rows: int) -> list[list[int]]:
        """How many epochs of its class images each sentence of each subject begins in the first `rows` photo rows.

        At most: which of the sentences a last round of them leaves out is not looked at.
        """
        counts = [0] * len(self.subjects)
        rehearsed = floor(rows * self.rehearsal_share)
        for first, group, count in (
            (0, self.taught, rows - rehearsed),
            (self.taught, len(self.subjects) - self.taught, rehearsed),
        ):
            for index in range(group):
                counts[first + index] = (count - index + group - 1) // group
        return [
            [_rounds(_rounds(count, len(subject.sentences)), len(one.class_images)) for one in subject.sentences]
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
            sentence = subject.sentences[self._sentence(number, ordinal)]
            prompts = sentence.captioned_prompts if self._captioned(number, ordinal) else sentence.photo_prompts
            rows.append(Row(view, prompts[photo]))
        return rows

    def prior_rows(self, step: int) -> list[Row]:
        """One class row beside every photo row whose subject has class images."""
        rows = []
        for row in range(step * self.batch_size, (step + 1) * self.batch_size):
            number, ordinal = self.subject_of(row)
            place = self._sentence(number, ordinal)
            sentence = self.subjects[number].sentences[place]
            count, turn = len(sentence.class_images), ordinal // len(self.subjects[number].sentences)
            if count and sentence.class_prompt is not None:
                purpose = f"class {place}" if place else "class"
                image = sentence.class_images[self._shuffled(purpose, number, turn, count)]
                prompt = sentence.class_prompt
                if sentence.empty_prompt is not None and self._is_chosen("empty", number, ordinal, self.empty_share):
                    prompt = sentence.empty_prompt
                rows.append(Row(image, prompt, turn // count))
        return rows

    def _sentence(self, subject: int, ordinal: int) -> int:
        """Which of a subject's sentences its row `ordinal` has: each once before any comes again."""
        return self._shuffled("sentence", subject, ordinal, len(self.subjects[subject].sentences))

    def _captioned(self, subject: int, ordinal: int) -> bool:
        return self._is_chosen("caption", subject, ordinal, self.caption_share)

    def _is_chosen(self, purpose: str, subject: int, ordinal: int, share: float) -> bool:
        """Whether a subject's row `ordinal` is of the share in [0, 1] of rows that a purpose is given."""
        return seed_for(self.seed, purpose, ordinal, subject) < share * SEED_RANGE

    def _shuffled(self, purpose: str, subject: int, ordinal: int, count: int) -> int:
        """Which of `count` images or sentences comes at an ordinal: every one once an epoch."""
        key = (purpose, subject, ordinal // count)
        if key not in self._orders:
            self._orders = {known: order for known, order in self._orders.items() if known[:2] != key[:2]}
            self._orders[key] = permutation_of(count, self.seed, purpose, key[2], subject)
        return self._orders[key][ordinal % count]


def _rounds(count: int, of: int) -> int:
    return -(-count // of) if of else 0
