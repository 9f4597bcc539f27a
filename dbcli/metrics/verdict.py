"""What a run has learnt, in words, from counts of images. No torch.

The thresholds are stated here once; docs/method.md gives their reasons.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from dbcli.prompt_text import with_article

# So many of the images have to show the subject for it to be learnt, and for it to be partly learnt: about one in five
# would be counted by chance.
LEARNT_SHARE, PARTLY_SHARE = 1 / 2, 1 / 3
# How far towards the photos images have to come from where the class is, the photos among themselves being 1.
LEAST_GAIN = 0.1
# So many images have to be nearer to the photos than the base's class: before, it means nothing that it went along.
LEAST_MOVED = 2 / 3
# Fewer scenes than these are left: in images that show the subject the photos have grown stronger than the prompt, in
# images that do not training has spoilt the base, which drew them.
LEAST_SCENE_SHARE = 2 / 3
# Fewer than these, and what is learnt comes with a word on how to have the prompt followed.
WANTED_SCENE_SHARE = 0.8
# From this share of copies on a prompt, a subject or a checkpoint is said to copy its photos.
COPYING_SHARE = 0.5
# How far the class may follow the subject: of the way that the subject has gone from where the base's class was.
CLASS_KEPT, CLASS_LOST = 1 / 3, 2 / 3
# A tenth ahead of it, as the class is early, the word has not been told from its noun yet; overtrained, both end alike.
CLASS_AHEAD = 1.1
# A verdict on fewer images would be one on chance.
LEAST_IMAGES = 8
# How many more steps to try, and how many fewer.
MORE, FEWER = 1.6, 0.6

State = Literal["learnt", "partly learnt", "not learnt yet", "overtrained"]


@dataclass(frozen=True)
class Counts:
    """What was counted of one subject: images that show it, images where the prompt says, and how its class fared.

    `gain` is likeness beyond the run's class as a share of the photos' own; `moved` is the share of images that are
    nearer to the photos than the class was as the base drew it, `reach` how far all have come from there, as a share of
    the whole way to the photos, `drift` the share of that way which the class has gone too and `class_moved` the share
    of the class's images that pass for the subject; `copies` a share of all.
    None where it is not known; `places` 0 where no prompt names any.
    """

    images: int
    identified: int
    places: int = 0
    in_place: int = 0
    gain: float | None = None
    moved: float | None = None
    drift: float | None = None
    copies: float | None = None
    reach: float | None = None
    class_moved: float | None = None


@dataclass(frozen=True)
class Verdict:
    """A state, the same in a sentence or two, and in few words for a list."""

    state: State
    text: str
    short: str

    def to_plain(self) -> dict[str, str]:
        return asdict(self)


def verdict_of(name: str, class_noun: str, counts: Counts, *, steps: int | None = None) -> Verdict | None:
    """The verdict on one subject; None for too few images. `steps` are those of the run, for what to try next."""
    if counts.images < LEAST_IMAGES:
        return None
    state = _state(counts)
    shown = f"{counts.identified} of {counts.images} images of {name}"
    parts = [f"{shown} show your photos' {class_noun} rather than any other"]
    if counts.places:
        parts.append(f"{counts.in_place} of {counts.places} are where the prompt says")
    if counts.copies is not None and counts.copies >= COPYING_SHARE:
        parts.append(f"{counts.copies:.0%} copy a photo")
    if (of_class := _of_class(name, class_noun, counts)) is not None:
        parts.append(of_class)
    advice = _advice(state, counts, steps)
    text = f"{state.capitalize()}: {'; '.join(parts)}.{f' {advice}' if advice else ''}"
    return Verdict(state, text, f"{state} {counts.identified}/{counts.images}")


def counts_of(subject: Mapping[str, Any]) -> Counts | None:
    """The counts of a subject's record in scores.json; None where nothing could be identified."""
    images, identified = _counted(subject, "identified")
    places, in_place = _counted(subject, "scene")
    if images == 0:
        return None
    found = {metric: (subject["scores"].get(metric) or {}).get("value") for metric in ("beyond_class", "copies")}
    real = subject["real"].get("beyond_class")
    gain = None if found["beyond_class"] is None or not real or real <= 0 else found["beyond_class"] / real
    of_class = subject.get("class_drift") or {}
    return Counts(
        images,
        identified,
        places,
        in_place,
        gain,
        of_class.get("moved"),
        of_class.get("share"),
        found["copies"],
        of_class.get("reach"),
        of_class.get("class_moved"),
    )


def _counted(subject: Mapping[str, Any], metric: str) -> tuple[int, int]:
    """Of how many images a share is known, and of how many it is true."""
    known = [prompt for prompt in subject["prompts"] if prompt["scores"].get(metric) is not None]
    counts = [(len(prompt["images"]), prompt["scores"][metric]) for prompt in known]
    return sum(count for count, _ in counts), sum(round(count * share) for count, share in counts)


def _state(counts: Counts) -> State:
    if _has_lost_class(counts):
        return "overtrained"
    share = _share_that_counts(counts)
    if _in_fewer_places(counts, LEAST_SCENE_SHARE):
        return "overtrained"
    if share < PARTLY_SHARE:
        return "not learnt yet"
    # In the place that the prompt asks for it is the pose that is copied, and not the photo.
    if not counts.places and counts.copies is not None and counts.copies >= COPYING_SHARE:
        return "overtrained"
    return "learnt" if share >= LEARNT_SHARE else "partly learnt"


def _share_that_counts(counts: Counts) -> float:
    """The share of images that show the subject; less where these are hardly nearer to the photos, or the class is."""
    share = counts.identified / counts.images
    # What the class has done since is judged by itself: the base's is where both began.
    gain = counts.gain if counts.reach is None else counts.reach
    if gain is not None and gain < LEAST_GAIN:
        return min(share, PARTLY_SHARE if share >= LEARNT_SHARE else 0.0)
    return min(share, PARTLY_SHARE) if _has_become(counts) and (counts.drift or 0.0) >= CLASS_AHEAD else share


def _in_fewer_places(counts: Counts, share: float) -> bool:
    return bool(counts.places) and counts.in_place < share * counts.places


def _has_lost_class(counts: Counts) -> bool:
    """The class has become the subject, however well that is learnt, and is not ahead of it."""
    return _has_become(counts) and (counts.drift or 0.0) < CLASS_AHEAD


def _has_become(counts: Counts) -> bool:
    """The class has gone along, and its images pass for the subject: a mean of eight may be that of two."""
    pass_for_it = counts.class_moved is None or counts.class_moved >= LEAST_MOVED
    return _has_moved(counts) and (counts.drift or 0.0) > CLASS_LOST and pass_for_it


def _has_moved(counts: Counts) -> bool:
    """Before the subject has come nearer to its photos, who went along with whom means nothing."""
    has_come = counts.reach is None or counts.reach >= LEAST_GAIN
    return counts.moved is not None and counts.moved >= LEAST_MOVED and has_come


def _of_class(name: str, class_noun: str, counts: Counts) -> str | None:
    if counts.drift is None or not _has_moved(counts):
        return None
    bare = with_article(class_noun)
    if counts.drift <= CLASS_KEPT:
        return f"'{bare}' still draws others"
    return f"'{bare}' {'has become' if _has_become(counts) else 'leans towards'} {name}"


def _advice(state: State, counts: Counts, steps: int | None) -> str:
    more, fewer = ("" if steps is None else f" (--steps {_rounded(steps * by)})" for by in (MORE, FEWER))
    if state == "overtrained":
        if counts.identified < PARTLY_SHARE * counts.images and not _has_lost_class(counts):
            return f"The base is spoilt: try a lower rate, or fewer steps{fewer}."
        return f"Try fewer steps{fewer} or an earlier checkpoint."
    if state in ("not learnt yet", "partly learnt"):
        return f"Try more steps{more}, or a class noun that the base draws well."
    if _in_fewer_places(counts, WANTED_SCENE_SHARE):
        return "Where the prompt is not followed, try another seed or a little more guidance."
    return ""


def _rounded(steps: float) -> int:
    """To two digits, as a person would have chosen them."""
    unit: int = 10 ** max(0, len(str(int(steps))) - 2)
    return max(1, round(steps / unit) * unit)
