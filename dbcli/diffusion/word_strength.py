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
from dbcli.diffusion.conditioning import embed_ids, token_ids
from dbcli.diffusion.images import Posterior
from dbcli.diffusion.noise import normal_rows
from dbcli.diffusion.schedulers.samplers import alphas_of
from dbcli.diffusion.training.losses import noised

# From nearly clean to nearly noise: words act on layout early and on detail late.
TIMESTEPS = (100, 300, 500, 700, 900)
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
    ids = token_ids(base.tokenizer, prompts)
    states = torch.cat([embed_ids(base.text_encoder, ids[start : start + 64]) for start in range(0, len(ids), 64)])
    ends = _at_end(states, ids, int(base.tokenizer.eos_token_id))
    text = (ends[2:] - ends[1]).norm(dim=1) / (ends[1] - ends[0]).norm()
    squared = torch.zeros(len(prompts), dtype=torch.float64)
    for timestep in TIMESTEPS:
        noisy = _noisy(base, class_images, timestep)
        plain = _predict(base, noisy, timestep, states[1])
        squared[0] += _distance(_predict(base, noisy, timestep, states[0]), plain)
        for row in range(2, len(prompts)):
            squared[row] += _distance(_predict(base, noisy, timestep, states[row]), plain)
            on_word(1)
    picture = (squared[2:] / squared[0]).sqrt()
    return [Strength(word, float(one), float(other)) for word, one, other in zip(words, text, picture, strict=True)]


def _at_end(states: torch.Tensor, ids: torch.Tensor, end_token: int) -> torch.Tensor:
    """The state at each prompt's first end token, `[N, D]`."""
    places = (ids == end_token).int().argmax(dim=1)
    return states[torch.arange(len(ids)), places.to(states.device)].double()


def _noisy(base: Base, class_images: Posterior, timestep: int) -> torch.Tensor:
    rows = list(range(len(class_images)))
    noise = normal_rows(class_images.mean.shape[1:], SEED, "prior strength", timestep, rows)
    times = torch.full((len(rows),), timestep)
    return noised(class_images.mean, noise, times, alphas_of(base.scheduler_config)).to(base.unet.device)


def _predict(base: Base, noisy: torch.Tensor, timestep: int, state: torch.Tensor) -> torch.Tensor:
    conditioning = state.unsqueeze(0).expand(len(noisy), -1, -1).to(noisy.device)
    prediction: torch.Tensor = base.unet(noisy, timestep, conditioning).sample
    return prediction


def _distance(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).double().square().mean())
