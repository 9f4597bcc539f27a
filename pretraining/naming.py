"""What a caption says, as classes: heads on the pooled text that must name the noun, the scene and the colour.

They keep the one vector that `tiny-clip` is matched to from forgetting what the denoiser reads token by token, and
they give a word that is new to the text encoder a meaning within minutes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pretraining.nouns import COLOURS, NOUNS
from pretraining.scenes import SCENES
from pretraining.settings import TEXT_WIDTH

NOUN_NAMES, SCENE_NAMES, COLOUR_NAMES = tuple(NOUNS), tuple(SCENES), tuple(COLOURS)
UNSAID = -100


class Names(nn.Module):
    """One linear head each for noun, scene and colour."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = nn.ModuleList(nn.Linear(TEXT_WIDTH, len(n)) for n in (NOUN_NAMES, SCENE_NAMES, COLOUR_NAMES))

    def forward(self, pooled: Tensor) -> list[Tensor]:
        """Return the logits of noun, scene and colour for pooled text [B, 128]."""
        return [head(pooled) for head in self.heads]


def naming_loss(logits: list[Tensor], labels: Tensor) -> Tensor:
    """Return the mean cross-entropy of what was said; labels [B, 3] hold UNSAID where a caption is silent."""
    losses = [
        F.cross_entropy(each, labels[:, column], ignore_index=UNSAID, reduction="sum")
        for column, each in enumerate(logits)
    ]
    return torch.stack(losses).sum() / (labels != UNSAID).sum().clamp(min=1)


def read_labels(captions: list[str], entries: list[list[str]]) -> Tensor:
    """Return the classes [U, 3] of captions; entries are rows of caption, noun, scene, colour of the corpus.

    Raises:
        ValueError: never for a corpus of `pretraining.corpus`; a noun that is not one of the base's.
    """
    said = torch.full((len(captions), 3), UNSAID)
    row_of = {caption: row for row, caption in enumerate(captions)}
    for caption, noun, scene, colour in entries:
        row = said[row_of[caption]]
        row[0] = NOUN_NAMES.index(noun)
        if scene in SCENES and caption.endswith(SCENES[scene][1]):
            row[1] = SCENE_NAMES.index(scene)
        if colour:
            row[2] = COLOUR_NAMES.index(colour)
    return said
