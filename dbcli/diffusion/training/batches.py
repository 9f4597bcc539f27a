"""Which images a step sees: a pure function of the run's seed and the step, so a run resumes anywhere."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import floor

from dbcli.diffusion.noise import SEED_RANGE, permutation_of, seed_for
from dbcli.diffusion.training.row_groups import RowGroups


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
    """One row of a batch: an image, the prompt it is trained with, and a class image's epoch (from 0).

    Epochs are those of the subject whose row it is, by its number among the run's.
    """

    image: int
    prompt: int
    epoch: int = 0
    subject: int = 0


@dataclass(frozen=True)
class _Dealt:
    """What a row shows: whose photo, which of the subject's rows it is, and which of those of the photo's size."""

    subject: int
    ordinal: int
    photo: int
    size: int
    turn: int

    def purpose(self, what: str) -> str:
        """What is drawn for the rows of one size; the first one's are named as where there is no other."""
        return f"{what} of size {self.size}" if self.size else what


class BatchSampler:
    """Photos and class images step by step: subjects in turn, each shuffled anew in every epoch of its own.

    Each photo row has one of its subject's sentences, all of them equally often, and in the share `caption_share` of
    rows the photo's caption behind it; the class row beside it has the same sentence, or in the share `empty_share` of
    rows the empty prompt. In the share `photo_empty_share` of photo rows the prompt is `empty_prompt`, and one that has
    `orders` of its words, by index, is taught in one of them.

    The last `rehearsed` subjects were learnt earlier: of all photo rows they get the share `rehearsal_share` in [0, 1),
    spread evenly, and the others the rest.

    `sizes` are the numbers, from 0, of the images' sizes, by index; all alike if there are none. A micro-batch has one
    size, class rows included; sentences and class images of each size come in an order of their own.
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
        photo_empty_share: float = 0.0,
        empty_prompt: int | None = None,
        orders: Mapping[int, Sequence[int]] | None = None,
        sizes: Sequence[int] = (),
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
        self.photo_empty_share, self.empty_prompt, self.orders = photo_empty_share, empty_prompt, orders or {}
        self._sizes = sizes
        self._groups = RowGroups(lambda row: self._dealt(row).size, batch_size, len({0, *sizes}))
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
        """How many epochs of its class images each sentence of each subject begins in `rows` photo rows of a run.

        At most, over all sizes: which of the sentences a last round of them leaves out is not looked at.
        """
        rows += self._groups.most_waiting
        counts = [0] * len(self.subjects)
        rehearsed = floor(rows * self.rehearsal_share)
        for first, group, count in (
            (0, self.taught, rows - rehearsed),
            (self.taught, len(self.subjects) - self.taught, rehearsed),
        ):
            for index in range(group):
                counts[first + index] = (count - index + group - 1) // group
        return [
            [self._epochs(subject, sentence, count) for sentence in subject.sentences]
            for count, subject in zip(counts, self.subjects, strict=True)
        ]

    def _epochs(self, subject: SubjectData, sentence: SentenceData, rows: int) -> int:
        found, sizes = 0, [self._size(views[0]) for views in subject.photos]
        for size in set(sizes):
            own = min(rows, _rounds(rows, len(sizes)) * sizes.count(size))
            images = self._of_size(sentence.class_images, size)
            found = max(found, _rounds(_rounds(own, len(subject.sentences)), len(images)))
        return found

    def subject_rows(self, step: int) -> list[Row]:
        """The `batch_size` photo rows of a (micro) step."""
        rows = []
        for one in map(self._dealt, self._groups.rows(step)):
            subject = self.subjects[one.subject]
            views = subject.photos[one.photo]
            view = views[seed_for(self.seed, "view", one.ordinal, one.subject) % len(views)]
            rows.append(Row(view, self._photo_prompt(subject.sentences[self._sentence(one)], one)))
        return rows

    def _photo_prompt(self, sentence: SentenceData, row: _Dealt) -> int:
        if self.empty_prompt is not None and self._is_chosen("empty photo", row, self.photo_empty_share):
            return self.empty_prompt
        captioned = self._is_chosen("caption", row, self.caption_share)
        prompt = (sentence.captioned_prompts if captioned else sentence.photo_prompts)[row.photo]
        orders = self.orders.get(prompt)
        return orders[seed_for(self.seed, "order", row.ordinal, row.subject) % len(orders)] if orders else prompt

    def prior_rows(self, step: int) -> list[Row]:
        """One class row beside every photo row whose subject has class images."""
        rows = []
        for one in map(self._dealt, self._groups.rows(step)):
            place = self._sentence(one)
            sentences = self.subjects[one.subject].sentences
            sentence, turn = sentences[place], one.turn // len(sentences)
            images = self._of_size(sentence.class_images, one.size)
            if images and sentence.class_prompt is not None:
                purpose = one.purpose(f"class {place}" if place else "class")
                image = images[self._shuffled(purpose, one.subject, turn, len(images))]
                prompt = sentence.class_prompt
                if sentence.empty_prompt is not None and self._is_chosen("empty", one, self.empty_share):
                    prompt = sentence.empty_prompt
                rows.append(Row(image, prompt, turn // len(images), one.subject))
        return rows

    def _dealt(self, row: int) -> _Dealt:
        """What row `row` of a run shows."""
        number, ordinal = self.subject_of(row)
        photos = self.subjects[number].photos
        epoch, place = divmod(ordinal, len(photos))
        order = self._order("photos", number, epoch, len(photos))
        size = self._size(photos[order[place]][0])
        # Every epoch has each photo once, so as many of this size as there are.
        alike = [photo for photo in order if self._size(photos[photo][0]) == size]
        turn = epoch * len(alike) + alike.index(order[place])
        return _Dealt(number, ordinal, order[place], size, turn)

    def _size(self, image: int) -> int:
        return self._sizes[image] if self._sizes else 0

    def _of_size(self, images: Sequence[int], size: int) -> Sequence[int]:
        return [image for image in images if self._size(image) == size] if self._sizes else images

    def _sentence(self, row: _Dealt) -> int:
        """Which of its subject's sentences a row has: each once before any comes again."""
        return self._shuffled(row.purpose("sentence"), row.subject, row.turn, len(self.subjects[row.subject].sentences))

    def _is_chosen(self, purpose: str, row: _Dealt, share: float) -> bool:
        """Whether a row is of the share in [0, 1] of its subject's rows that a purpose is given."""
        return seed_for(self.seed, purpose, row.ordinal, row.subject) < share * SEED_RANGE

    def _shuffled(self, purpose: str, subject: int, ordinal: int, count: int) -> int:
        """Which of `count` images or sentences comes at an ordinal: every one once an epoch."""
        return self._order(purpose, subject, ordinal // count, count)[ordinal % count]

    def _order(self, purpose: str, subject: int, epoch: int, count: int) -> list[int]:
        key = (purpose, subject, epoch)
        if key not in self._orders:
            self._orders = {known: order for known, order in self._orders.items() if known[:2] != key[:2]}
            self._orders[key] = permutation_of(count, self.seed, purpose, epoch, subject)
        return self._orders[key]


def _rounds(count: int, of: int) -> int:
    return -(-count // of) if of else 0
