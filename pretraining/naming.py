"""What a caption says, as classes: heads on the pooled text that must name noun, scene, colour and style.

They keep the one vector that `tiny-clip` is matched to from forgetting what the denoiser reads token by token, and
they give a word that is new to the text encoder a meaning within minutes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pretraining.nouns import COLOURS, NOUNS
from pretraining.scenes import SCENES
from pretraining.settings import TEXT_WIDTH
from pretraining.styles import STYLES

NOUN_NAMES, SCENE_NAMES, COLOUR_NAMES, STYLE_NAMES = tuple(NOUNS), tuple(SCENES), tuple(COLOURS), tuple(STYLES)
# Silence is a class of its own: else "a dog" may come to mean the commonest scene, and naming it changes nothing.
CLASSES = (len(NOUN_NAMES), len(SCENE_NAMES) + 1, len(COLOUR_NAMES) + 1, len(STYLE_NAMES) + 1)
UNKNOWN = -100


class Names(nn.Module):
    """One linear head each for noun, scene, colour and style."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = nn.ModuleList(nn.Linear(TEXT_WIDTH, count) for count in CLASSES)

    def forward(self, pooled: Tensor) -> list[Tensor]:
        """Return the logits of noun, scene, colour and style for pooled text [B, 128]."""
        return [head(pooled) for head in self.heads]


def naming_loss(logits: list[Tensor], labels: Tensor) -> Tensor:
    """Return the mean cross-entropy over what is known; labels [B, 4] hold UNKNOWN for captions without a noun."""
    losses = [
        F.cross_entropy(each, labels[:, column], ignore_index=UNKNOWN, reduction="sum")
        for column, each in enumerate(logits)
    ]
    return torch.stack(losses).sum() / (labels != UNKNOWN).sum().clamp(min=1)


def read_labels(captions: list[str], entries: list[list[str]]) -> Tensor:
    """Return the classes [U, 4] of captions; entries are rows of caption, noun, scene, colour, style of the corpus.

    A scene, colour or style that the caption does not name is the last class; captions that no entry has, such as the
    empty one, are UNKNOWN throughout.
    """
    said = torch.full((len(captions), len(CLASSES)), UNKNOWN)
    row_of = {caption: row for row, caption in enumerate(captions)}
    for caption, noun, scene, colour, style in entries:
        named = scene in SCENES and caption.endswith(SCENES[scene][1])
        said[row_of[caption]] = torch.tensor(
            [
                NOUN_NAMES.index(noun),
                SCENE_NAMES.index(scene) if named else len(SCENE_NAMES),
                COLOUR_NAMES.index(colour) if colour else len(COLOUR_NAMES),
                STYLE_NAMES.index(style) if caption.startswith(STYLES[style]) else len(STYLE_NAMES),
            ]
        )
    return said
