"""What the base was taught to say, as the program reads it: nouns, scenes, colours and styles (`words.json`)."""

import json
from pathlib import Path

from pretraining.nouns import COLOURS, NOUNS
from pretraining.scenes import SCENES
from pretraining.styles import STYLES


def taught_words() -> dict[str, object]:
    """Return nouns with their synonyms, scenes with their phrases, colours, and styles as they stand in a caption."""
    return {
        "nouns": {noun: list(entry.synonyms) for noun, entry in NOUNS.items()},
        "scenes": {scene: list(phrases) for scene, (_, phrases) in SCENES.items()},
        "colours": list(COLOURS),
        "styles": list(STYLES.values()),
    }


def write_words(file: Path) -> None:
    """Write them as JSON."""
    file.write_text(json.dumps(taught_words(), indent=1) + "\n", encoding="utf-8")
