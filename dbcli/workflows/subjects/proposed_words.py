"""Which word to propose for a subject: free, and as weak as any that is known; the same wherever one is proposed."""

from collections.abc import Iterator, Mapping, Sequence

from dbcli.project.files.layout import Layout
from dbcli.project.prompts.token_claims import KNOWN_MEANINGS, Claim, clash, known_words
from dbcli.project.settings.project_settings import load_settings
from dbcli.project.subjects.subject_record import Subject
from dbcli.project.subjects.subject_store import list_subjects, photo_paths, registry_of
from dbcli.project.subjects.word_strengths import measured_strengths, ranked_words


def proposed_words(layout: Layout, subject: Subject, count: int = 1, *, claims: Sequence[Claim] = ()) -> list[str]:
    """Words for a subject of the project, or one that is about to be, the weakest first.

    They clash with nobody's, nor with `claims`, nor with what is proposed for the subjects before it that have no word
    yet: what is proposed for all of them can be taken for all of them.
    """
    from dbcli.diffusion.vocabulary import tokens_of

    taken = list(claims)
    for one in _waiting_before(layout, subject):
        if one.name not in {claim.owner for claim in claims}:
            word = free_words(layout, [*registry_of(layout).claims(tokens_of, one), *taken], one.class_noun, 1)[0]
            taken.append(Claim(one.name, word, frozenset(tokens_of(word))))
    own = [*registry_of(layout).claims(tokens_of, subject), *taken]
    return free_words(layout, own, subject.class_noun, count)


def _waiting_before(layout: Layout, subject: Subject) -> list[Subject]:
    """The subjects without an identifier that were added before one, in that order: another one shifts no proposal."""
    waiting = [one for one in list_subjects(layout) if one.identifier is None or one.name == subject.name]
    waiting.sort(key=lambda one: (_added(layout, one), one.name))
    names = [one.name for one in waiting]
    return waiting[: names.index(subject.name)] if subject.name in names else waiting


def _added(layout: Layout, subject: Subject) -> int:
    try:
        return min(path.stat().st_mtime_ns for path in photo_paths(layout, subject)[:1])
    except (OSError, ValueError):
        return 0


def claims_of(identifiers: Mapping[str, str]) -> list[Claim]:
    """The tokens of identifiers, by subject, that are about to be given."""
    from dbcli.diffusion.vocabulary import tokens_of

    return [Claim(name, word, frozenset(tokens_of(word))) for name, word in identifiers.items()]


def free_words(layout: Layout, claims: Sequence[Claim], class_noun: str, count: int) -> list[str]:
    """The weakest single-token words beside a class noun that mean nothing known and clash with nobody; after those
    whose strength is known the rarest.
    """
    from dbcli.diffusion.vocabulary import bound_words, tokens_of

    found: list[str] = []
    meaningful = known_words() | bound_words() | set(KNOWN_MEANINGS)
    for word in _candidates(layout, class_noun):
        if len(found) == count:
            break
        if word not in meaningful and word not in found and clash(word, tokens_of(word), claims) is None:
            found.append(word)
    return found


def _candidates(layout: Layout, class_noun: str) -> Iterator[str]:
    from dbcli.diffusion.vocabulary import rare_words, tokens_of

    base = load_settings(layout).base
    ranked = ranked_words(base, class_noun, measured_strengths(layout, class_noun))
    # They were ranked in CLIP's vocabulary, of which another one may lack some.
    yield from (word for word in ranked if len(tokens_of(word)) == 1)
    yield from rare_words()
