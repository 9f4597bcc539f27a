"""Choosing identifiers: proposing rare words, measuring them, and saying what speaks against one."""

from __future__ import annotations

import hashlib
import itertools
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from dbcli import __version__
from dbcli.errors import Collision, UsageError
from dbcli.project.files.layout import Layout
from dbcli.project.prompts.identifiers import check_class_noun, check_identifier
from dbcli.project.prompts.token_claims import KNOWN_MEANINGS, Claim, SubjectWord, clash, clashes_between, known_words
from dbcli.project.runs.run_store import list_runs
from dbcli.project.seeds import first_seed
from dbcli.project.subjects.registry import TokenCheck
from dbcli.project.subjects.subject_record import Subject
from dbcli.project.subjects.subject_store import list_subjects, registry_of, verify_words
from dbcli.project.subjects.word_strengths import remember_strengths
from dbcli.workflows.progress import Progress
from dbcli.workflows.setup.open import load_project_base
from dbcli.workflows.signals import listening
from dbcli.workflows.subjects.proposed_words import free_words, proposed_words

if TYPE_CHECKING:
    from dbcli.diffusion.bases.base import Base
    from dbcli.diffusion.word_strength import ClassSide, Strength

# Words measured before the best are shown: more would take longer than a minute on two cores.
CANDIDATES = 50
CLASS_IMAGES = 4
# How these are drawn, where the base can be: it needs few steps.
QUICK_SAMPLER = "dpm++"
DEFAULT_CLASS = "dog"


@dataclass(frozen=True)
class Proposal:
    """A word that could become an identifier: its tokens, and how much it means already (None: not measured)."""

    word: str
    tokens: tuple[int, ...]
    text: float | None = None
    picture: float | None = None

    @property
    def together(self) -> float | None:
        return None if self.text is None or self.picture is None else (self.text + self.picture) / 2


@dataclass(frozen=True)
class SuggestRequest:
    """Which words are wanted: beside which class noun, how many, single tokens or the paper's sequences."""

    class_noun: str | None = None
    count: int = 10
    sequences: bool = False
    seed: int = 0


@dataclass(frozen=True)
class Verdict:
    """All there is to say of one word: who holds it, what it clashes with, what it is known to mean."""

    proposal: Proposal
    owner: str | None
    clash: str | None
    meaning: str | None
    rarity: float


@dataclass(frozen=True)
class Holder:
    """One subject's identifier: here, or in runs alone; measured only where that was requested."""

    subject: str
    class_noun: str
    identifier: str | None
    tokens: tuple[int, ...]
    rarity: float | None
    clash: str | None
    runs: list[str]
    strength: float | None = None


def token_check(layout: Layout, *, allow_collision: bool = False) -> TokenCheck:
    """What the store needs to compare identifiers token by token."""
    from dbcli.diffusion.vocabulary import tokens_of

    def propose(subject: Subject, claims: Sequence[Claim], count: int) -> list[str]:
        return proposed_words(layout, subject, count, claims=claims)

    return TokenCheck(tokens_of, propose, allow_collision)


def check_new_words(layout: Layout, subject: Subject, identifier: str, allow_collision: bool) -> None:
    """Raises Collision where the words of a subject that shall become known are another's; UsageError for no word."""
    tokens = token_check(layout, allow_collision=allow_collision)
    registry_of(layout).check_noun(subject, tokens)
    verify_words(layout, subject.model_copy(update={"identifier": identifier}), tokens)


def clashes_among(layout: Layout, words: Sequence[SubjectWord], what: str, *, allow: bool) -> tuple[str, ...]:
    """The clashes among subjects that shall share a model, where they are allowed; `what` begins the refusal.

    Raises Collision with every clash and three words to take instead where they are not.
    """
    from dbcli.diffusion.vocabulary import tokens_of

    found = tuple(clashes_between([word for word in words if word.identifier], tokens_of))
    if found and not allow:
        claims = [
            Claim(one.subject, text, frozenset(tokens_of(text)), is_noun)
            for one in words
            for text, is_noun in ((one.identifier, False), (one.class_noun, True))
        ]
        raise Collision(
            f"{what}: {'; '.join(found)}.",
            hint=f"train one of them with --token {', '.join(free_words(layout, claims, words[-1].class_noun, 3))}; "
            "or, for research, --allow-collision",
        )
    return found


def random_sequences(claims: Sequence[Claim], count: int, *, seed: int) -> list[str]:
    """The paper's recipe (Ruiz et al. 2023, section 3.2): one to three rare tokens, joined and read back.

    Only strings that the tokenizer cuts at the same places again are kept.
    """
    from dbcli.diffusion.vocabulary import rare_words, text_of, tokens_of

    draw = random.Random(seed)
    pieces = rare_words(shortest=1, longest=3, rare_from=5_000)
    found: list[str] = []
    for _ in range(200 * count):
        if len(found) == count:
            break
        word = "".join(draw.choice(pieces) for _ in range(draw.randint(1, 3)))
        tokens = tokens_of(word)
        whole = "".join(text_of(token) for token in tokens).replace("</w>", "")
        if len(tokens) <= 3 and whole == word and word not in found and word not in known_words():
            found += [word] if clash(word, tokens, claims) is None else []
    return found


def suggest(layout: Layout, request: SuggestRequest, progress: Progress, *, offline: bool) -> list[Proposal]:
    """The words that mean least to the project's base beside a class noun, the weakest first.

    What is measured is kept: it is what other commands propose from then on.
    """
    from dbcli.diffusion.vocabulary import tokens_of

    if not 1 <= request.count <= CANDIDATES:
        raise UsageError(f"-n {request.count}: from 1 to {CANDIDATES} words can be suggested.")
    seed = first_seed(request.seed)
    noun = check_class_noun(request.class_noun or _usual_noun(list_subjects(layout)))
    claims = registry_of(layout).claims(tokens_of) + [Claim("this one", noun, frozenset(tokens_of(noun)), True)]
    if request.sequences:
        words = random_sequences(claims, CANDIDATES, seed=seed)
    else:
        words = free_words(layout, claims, noun, CANDIDATES)
    proposals = _measured(layout, words, noun, progress, offline=offline)
    if not request.sequences:
        # Only here: one word measured alone, such as a bad one that was checked, must not come before all others.
        remember_strengths(layout, noun, {one.word: one.together for one in proposals if one.together is not None})
    return sorted(proposals, key=lambda one: (one.together or 0.0, one.word))[: request.count]


def check_word(layout: Layout, word: str, *, class_noun: str | None, progress: Progress, offline: bool) -> Verdict:
    """What speaks for and against one word; UsageError for what cannot be a word at all."""
    from dbcli.diffusion.vocabulary import tokens_of

    checked = check_identifier(word)
    subjects = list_subjects(layout)
    noun = check_class_noun(class_noun or _usual_noun(subjects))
    owner = next((one.name for one in subjects if (one.identifier or "").casefold() == checked.casefold()), None)
    own = next((one for one in subjects if one.name == owner), None)
    reason = clash(checked, tokens_of(checked), registry_of(layout).claims(tokens_of, own))
    measured = _measured(layout, [checked], noun, progress, offline=offline)[0]
    return Verdict(measured, owner, reason, KNOWN_MEANINGS.get(checked.casefold()), rarity(measured.tokens))


def _usual_noun(subjects: Sequence[Subject]) -> str:
    """The class noun that a word is wanted beside where none is named: the first subject's that has no word yet."""
    without = [one for one in subjects if one.identifier is None]
    return next((one.class_noun for one in [*without, *subjects]), DEFAULT_CLASS)


def rarity(tokens: Sequence[int]) -> float:
    """The share of the vocabulary that is commoner than the commonest token of a word, 0 to 1."""
    from dbcli.diffusion.vocabulary import known_tokens

    share: float = min(tokens, default=0) / known_tokens()
    return share


def holders(layout: Layout, *, measure: bool, progress: Progress, offline: bool) -> list[Holder]:
    """Every word that is spoken for, here and in runs, with what it clashes with; `measure` loads the base."""
    here = list_subjects(layout)
    runs_by_words: dict[tuple[str, str, str | None], list[str]] = {
        (one.name, one.class_noun, one.identifier): [] for one in here
    }
    for run in list_runs(layout):
        for one in run.subjects:
            runs_by_words.setdefault((one.name, one.class_noun, one.identifier), []).append(run.name)
    # A subject under an older name is still the same one.
    current = {name: one for one in here for name in one.names}
    found = []
    for (name, noun, identifier), runs in runs_by_words.items():
        # An imported embedding may have no noun, which a subject of the project may not.
        unknown = Subject.model_construct(name=name, class_noun=noun, identifier=identifier)
        found.append(_holder(layout, name, noun, identifier, current.get(name, unknown), runs))
    return _with_strengths(layout, found, progress, offline=offline) if measure else found


def _with_strengths(layout: Layout, found: Sequence[Holder], progress: Progress, *, offline: bool) -> list[Holder]:
    """The same with each word measured beside its noun, by a base that is loaded once."""
    words: dict[str, dict[str, None]] = {}
    for one in found:
        if one.identifier is not None:
            words.setdefault(one.class_noun, {})[one.identifier] = None
    measured = _measured_beside(layout, {noun: list(own) for noun, own in words.items()}, progress, offline=offline)
    strengths = {(noun, one.word): one.together for noun, proposals in measured.items() for one in proposals}
    return [replace(one, strength=strengths.get((one.class_noun, one.identifier or ""))) for one in found]


def _holder(layout: Layout, name: str, noun: str, identifier: str | None, subject: Subject, runs: list[str]) -> Holder:
    from dbcli.diffusion.vocabulary import tokens_of

    if identifier is None:
        return Holder(name, noun, None, (), None, None, runs)
    tokens = tokens_of(identifier)
    reason = clash(identifier, tokens, registry_of(layout).claims(tokens_of, subject))
    return Holder(name, noun, identifier, tokens, rarity(tokens), reason, runs)


def _measured(layout: Layout, words: Sequence[str], noun: str, progress: Progress, *, offline: bool) -> list[Proposal]:
    return _measured_beside(layout, {noun: words}, progress, offline=offline)[noun]


def _measured_beside(
    layout: Layout, words_beside: Mapping[str, Sequence[str]], progress: Progress, *, offline: bool
) -> dict[str, list[Proposal]]:
    """What words mean to the project's base beside each class noun; without any nothing is loaded."""
    from dbcli.diffusion.devices import pick_device
    from dbcli.diffusion.vocabulary import tokens_of

    found: dict[str, list[Proposal]] = {}
    if not words_beside:
        return found
    with listening() as stop:
        base = load_project_base(layout, progress, offline=offline, device=pick_device("auto"))
        for noun, words in words_beside.items():
            side = _class_side(layout, base, noun)
            stop.raise_if_stopped("Stopped before all words were measured.")
            strengths = _strengths(base, words, noun, side, progress)
            found[noun] = [Proposal(one.word, tokens_of(one.word), one.text, one.picture) for one in strengths]
    return found


def _strengths(base: Base, words: Sequence[str], noun: str, side: ClassSide, progress: Progress) -> list[Strength]:
    from dbcli.diffusion.word_strength import LEVELS, prior_strengths

    looks = itertools.count(1)
    with progress.stage(f"Measuring words beside {noun}", len(words), parts=len(LEVELS)) as stage:

        def on_word(count: int) -> None:
            stage.advance(count)
            # Every word is looked at once a level: it is measured after its last look.
            if next(looks) > len(words) * (len(LEVELS) - 1):
                stage.complete()

        found: list[Strength] = prior_strengths(base, words, noun, side, on_word=on_word)
    return found


def _class_side(layout: Layout, base: Base, noun: str) -> ClassSide:
    """A few pictures of the class by the base itself, and what it predicts of them; kept for the next word."""
    from dbcli.diffusion.files.kept_tensors import keep_tensors, kept_tensors
    from dbcli.diffusion.images import Posterior, encode
    from dbcli.diffusion.sampling.sample import SampleRequest, SamplingSettings, sample_images
    from dbcli.diffusion.word_strength import ClassSide, class_side

    size = base.resolution
    known = base.process.samplers()
    sampler = QUICK_SAMPLER if QUICK_SAMPLER in known else known[0]
    how = SamplingSettings(sampler, 12, 3.0, 0.0, size, size, CLASS_IMAGES)
    orders = [SampleRequest(f"a photo of a {noun}", seed) for seed in range(CLASS_IMAGES)]
    facts = [__version__, base.hash, str(base.unet.device), repr(how), repr(orders)]
    file = layout.measuring_dir / f"{hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]}.safetensors"
    kept = kept_tensors(file, ("mean", "deviation", "plain", "moved"))
    if kept is not None:
        mean, deviation, plain, moved = kept
        return ClassSide(Posterior(mean, deviation), plain, moved)
    pixels = [picture.clamp(-1, 1) for _, picture in sample_images(base, orders, how)]
    found = class_side(base, noun, encode(base.vae, pixels, batch_size=CLASS_IMAGES))
    tensors = {"mean": found.images.mean, "deviation": found.images.deviation}
    keep_tensors(file, {**tensors, "plain": found.plain, "moved": found.moved})
    return found
