"""The words that the embedded base was taught, and which words of a text are none of them."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

from dbcli.hints import nearest
from dbcli.prompt_text import with_article

# They join the others, and are in every caption that the base was taught with.
JOINING = frozenset(
    ["a", "an", "and", "as", "at", "behind", "by", "for", "from", "in", "is", "it", "its", "near", "next", "of", "on"]
    + ["over", "the", "to", "under", "with"]
)
# Words for things that it was taught under another noun: what a person may well call theirs.
KINDS = {
    "dog": "beagle boxer bulldog chihuahua collie corgi dachshund dalmatian doberman hound husky labrador mastiff mutt "
    "pitbull pomeranian poodle pug retriever rottweiler samoyed schnauzer shepherd shiba spaniel terrier whippet",
    "cat": "bengal ginger persian ragdoll siamese sphynx tabby tomcat",
    "fox": "coyote wolf",
    "duck": "bird goose duckling",
    "backpack": "bag handbag rucksack satchel schoolbag suitcase",
    "teapot": "kettle",
    "boot": "boots wellington",
    "sneaker": "footwear loafer sandal shoes slipper sneakers trainer trainers",
    "bowl": "basin dish plate",
    "can": "tin",
    "candle": "candlestick",
    "clock": "watch",
    "glasses": "eyeglasses goggles shades spectacles",
    "stuffed animal": "bear doll figurine plush plushie teddy toy",
    "vase": "jar jug pitcher pot urn",
    "car": "bus jeep limousine lorry pickup suv truck van vehicle",
    "robot": "android",
    "cup": "beaker glass tumbler",
    "house": "building cabin church cottage hut villa",
    "apple": "fruit peach pear",
    "guitar": "bass banjo cello ukulele violin",
    "umbrella": "parasol",
    "mushroom": "toadstool",
}
_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")


@dataclass(frozen=True)
class EmbeddedWords:
    """Nouns with their synonyms, scenes with their phrases, colours and styles."""

    nouns: Mapping[str, Sequence[str]]
    scenes: Mapping[str, Sequence[str]]
    colours: Sequence[str]
    styles: Sequence[str]

    @property
    def all_nouns(self) -> list[str]:
        """Nouns and synonyms."""
        return [word for noun, others in self.nouns.items() for word in (noun, *others)]

    @property
    def plain_backgrounds(self) -> list[str]:
        """A plain background of every colour, in words."""
        return [f"on {with_article(colour)} background" for colour in self.colours]

    @property
    def usual_scenes(self) -> list[str]:
        """One phrase for each scene, as a person is told of them."""
        return [phrases[0] for phrases in self.scenes.values()]

    def knows_noun(self, noun: str) -> bool:
        """Whether a class noun is one it was taught, or ends in one: "old dog"."""
        text = " ".join(noun.casefold().split())
        return any(text == known or text.endswith(f" {known}") for known in self.all_nouns)

    def near_noun(self, noun: str) -> str | None:
        """The noun that one it does not know is a kind of, or may be a slip for; None where none is near."""
        last = noun.casefold().split()[-1]
        of_kind = next((known for known, kinds in KINDS.items() if last in kinds.split()), None)
        return of_kind or nearest(noun, self.all_nouns)

    def unknown(self, texts: Iterable[str], own: Collection[str] = ()) -> list[str]:
        """Words of texts that it was never taught, each once; `own` are those of the subjects."""
        known = {word.casefold() for text in (*self._taught(), *own) for word in _WORD.findall(text)} | JOINING
        found = (word for text in texts for word in _WORD.findall(text) if not word.isnumeric())
        return list(dict.fromkeys(word for word in found if word.casefold() not in known))

    def _taught(self) -> list[str]:
        phrases = [phrase for own in self.scenes.values() for phrase in own]
        return [*self.all_nouns, *phrases, *self.colours, *self.styles, "background"]


@cache
def embedded_words() -> EmbeddedWords:
    """What `words.json` beside the embedded base says."""
    file = Path(str(resources.files("dbcli"))) / "embedded" / "words.json"
    return EmbeddedWords(**json.loads(file.read_text(encoding="utf-8")))
