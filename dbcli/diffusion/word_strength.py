"""How much a word already means to a base: what it does to the text, and what it does to the image.

For a word V and a class noun c, with e(.) the text encoder's state at the end token and d(x_t, .) the denoiser's
prediction:

    text(V)    = |e("a V c") - e("a c")| / |e("a c") - e("")|
    image(V)   = sqrt( mean |d(x_t, "a V c") - d(x_t, "a c")|^2 / mean |d(x_t, "a c") - d(x_t, "")|^2 )
    strength   = (text(V) + image(V)) / 2

The means run over class images, timesteps and all values, with the same noise for every word. Both ratios say: as a
share of how far the class noun itself moves things. Weaker is better.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from dbcli.diffusion.bases.base import Base
from dbcli.diffusion.conditioning import encode_ids, ids_of
from dbcli.diffusion.families.conditioning import Conditioning
from dbcli.diffusion.images import Posterior
from dbcli.diffusion.noise import normal_rows
from dbcli.diffusion.precision import where_float64_is

# From nearly clean to nearly noise, in thousandths of the way: words act on layout early and on detail late.
LEVELS = (100, 300, 500, 700, 900)
SEED = 0


@dataclass(frozen=True)
class Strength:
    """What a word already does: to the text, to the image, and both together; all relative to the class noun."""

    word: str
    text: float
    picture: float

    @property
    def together(self) -> float:
        return (self.text + self.picture) / 2


@dataclass(frozen=True)
class ClassSide:
    """What every word beside a class noun is compared with: class images, and the predictions for the noun alone.

    `plain` is d(x_t, "a c"), `[levels, N, C, h, w]`; `moved` the mean |d(x_t, "a c") - d(x_t, "")|^2 of each level.
    """

    images: Posterior
    plain: torch.Tensor
    moved: torch.Tensor


@torch.no_grad()
def class_side(base: Base, class_noun: str, class_images: Posterior) -> ClassSide:
    """The side of a comparison that is the same for all words beside a class noun."""
    conditioning = encode_ids(base, ids_of(base, ["", f"a {class_noun}"]))
    plain, moved = [], []
    for number in LEVELS:
        empty, noun = (_predicted(base, class_images, number, conditioning.rows([row])) for row in (0, 1))
        plain.append(noun.cpu())
        moved.append(_distance(empty, noun))
    return ClassSide(class_images, torch.stack(plain), torch.tensor(moved, dtype=torch.float64))


@torch.no_grad()
def prior_strengths(
    base: Base,
    words: Sequence[str],
    class_noun: str,
    side: ClassSide,
    *,
    on_word: Callable[[int], None] = lambda count: None,
) -> list[Strength]:
    """The strength of every word, in the order given; `side` is that of the class noun."""
    prompts = ["", f"a {class_noun}", *[f"a {word} {class_noun}" for word in words]]
    ids = ids_of(base, prompts)
    starts = range(0, len(prompts), 64)
    encoded = [encode_ids(base, {name: rows[start : start + 64] for name, rows in ids.items()}) for start in starts]
    conditioning = Conditioning.cat(encoded)
    first = next(iter(ids))
    ends = _at_end(conditioning.states, ids[first], int(base.tokenizers[first].eos_token_id))
    text = (ends[2:] - ends[1]).norm(dim=1) / (ends[1] - ends[0]).norm()
    squared = torch.zeros(len(words), dtype=torch.float64)
    for number, plain in zip(LEVELS, side.plain, strict=True):
        for row in range(len(words)):
            found = _predicted(base, side.images, number, conditioning.rows([row + 2]))
            squared[row] += _distance(found, plain.to(found.device))
            on_word(1)
    picture = (squared / side.moved.sum()).sqrt()
    return [Strength(word, float(one), float(other)) for word, one, other in zip(words, text, picture, strict=True)]


def _predicted(base: Base, images: Posterior, number: int, prompt: Conditioning) -> torch.Tensor:
    """What is predicted of all class images at a level with one prompt, with the same noise for every prompt."""
    rows, process, device = list(range(len(images))), base.process, base.unet.device
    noise = normal_rows(images.mean.shape[1:], SEED, "prior strength", number, rows)
    levels = process.level_at(number / 1000).expand(len(rows))
    noisy = process.noised(images.mean, noise, levels).to(device)
    return base.denoiser(noisy, levels.to(device), prompt.expand(len(rows)).to(device))


def _at_end(states: torch.Tensor, ids: torch.Tensor, end_token: int) -> torch.Tensor:
    """The state at each prompt's first end token, `[N, D]`."""
    places = (ids == end_token).int().argmax(dim=1)
    return where_float64_is(states[torch.arange(len(ids)), places.to(states.device)]).double()


def _distance(one: torch.Tensor, other: torch.Tensor) -> float:
    return float(where_float64_is(one - other).double().square().mean())
