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


@torch.no_grad()
def prior_strengths(
    base: Base,
    words: Sequence[str],
    class_noun: str,
    class_images: Posterior,
    *,
    on_word: Callable[[int], None] = lambda count: None,
) -> list[Strength]:
    """The strength of every word, in the order given."""
    prompts = ["", f"a {class_noun}", *[f"a {word} {class_noun}" for word in words]]
    ids = ids_of(base, prompts)
    starts = range(0, len(prompts), 64)
    encoded = [encode_ids(base, {name: rows[start : start + 64] for name, rows in ids.items()}) for start in starts]
    conditioning = Conditioning.cat(encoded)
    first = next(iter(ids))
    ends = _at_end(conditioning.states, ids[first], int(base.tokenizers[first].eos_token_id))
    text = (ends[2:] - ends[1]).norm(dim=1) / (ends[1] - ends[0]).norm()
    squared = torch.zeros(len(prompts), dtype=torch.float64)
    process, device = base.process, base.unet.device
    for number in LEVELS:
        rows = list(range(len(class_images)))
        noise = normal_rows(class_images.mean.shape[1:], SEED, "prior strength", number, rows)
        levels = process.level_at(number / 1000).expand(len(rows))
        noisy = process.noised(class_images.mean, noise, levels).to(device)
        there = levels.to(device)

        def predicted(row: int, noisy: torch.Tensor = noisy, levels: torch.Tensor = there) -> torch.Tensor:
            return base.denoiser(noisy, levels, conditioning.rows([row]).expand(len(noisy)).to(device))

        plain = predicted(1)
        squared[0] += _distance(predicted(0), plain)
        for row in range(2, len(prompts)):
            squared[row] += _distance(predicted(row), plain)
            on_word(1)
    picture = (squared[2:] / squared[0]).sqrt()
    return [Strength(word, float(one), float(other)) for word, one, other in zip(words, text, picture, strict=True)]


def _at_end(states: torch.Tensor, ids: torch.Tensor, end_token: int) -> torch.Tensor:
    """The state at each prompt's first end token, `[N, D]`."""
    places = (ids == end_token).int().argmax(dim=1)
    return states[torch.arange(len(ids)), places.to(states.device)].double()


def _distance(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).double().square().mean())
