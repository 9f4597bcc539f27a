"""What makes training fast changes nothing: the curve of losses is that of a plain loop that computes all anew."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from dbcli.diffusion.adapters.attach import make_full
from dbcli.diffusion.conditioning import FrozenPrompts
from dbcli.diffusion.families.process import Diffusion, level_rows
from dbcli.diffusion.images import encode
from dbcli.diffusion.noise import normal_rows
from dbcli.diffusion.schedulers.samplers import alphas_of
from dbcli.diffusion.training.batches import BatchSampler, SentenceData, SubjectData
from dbcli.diffusion.training.objective import Objective
from dbcli.diffusion.training.optimisers import Optimisation
from dbcli.diffusion.training.trainer import LoopSettings, StepInputs, Trainer
from tests.diffusion import tiny_models

STEPS, RATE = 20, 1e-5
PROMPTS = ["a sks dog", "a dog"]
SCHEDULER = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000}
# Of bf16 against float32 on this network: eight bits of a mantissa, averaged over a picture's latents.
BF16_BAND = 0.01


@pytest.fixture
def parts() -> dict[str, Any]:
    return {name: copy.deepcopy(network) for name, network in tiny_models.networks().items()}


def photos() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.rand(3, 64, 64, generator=generator) * 2 - 1 for _ in range(6)]


def fast_losses(parts: dict[str, Any], precision: str) -> list[float]:
    """The program's trainer: everything that does not learn computed once, one pass for both kinds of rows."""
    trainable = make_full(tiny_models.tunable(parts), train_text=False)
    trainer = Trainer(
        tiny_models.base_of(parts).denoiser,
        trainable,
        StepInputs(
            encode(parts["vae"], photos(), batch_size=4),
            FrozenPrompts(tiny_models.base_of(parts), PROMPTS, torch.device("cpu")),
            BatchSampler(
                [SubjectData([[0], [1], [2]], [SentenceData([0] * 3, [0] * 3, (3, 4, 5), 1)])], batch_size=1, seed=0
            ),
        ),
        objective=Objective(Diffusion.of(SCHEDULER)),
        optimisation=Optimisation(learning_rate=RATE),
        loop=LoopSettings(steps=STEPS, precision=precision),
    )
    return [trainer.step().loss for _ in range(STEPS)]


def plain_losses(parts: dict[str, Any]) -> list[float]:
    """The same rows and noise by a loop that knows none of it: encoders at every step, a pass a row, plain AdamW."""
    unet, tokenizer, alphas, pixels = parts["unet"].train(), tiny_models.tokenizer(), alphas_of(SCHEDULER), photos()
    unet.requires_grad_(True)
    rows = BatchSampler(
        [SubjectData([[0], [1], [2]], [SentenceData([0] * 3, [0] * 3, (3, 4, 5), 1)])], batch_size=1, seed=0
    )
    optimiser = torch.optim.AdamW(unet.parameters(), lr=RATE, weight_decay=1e-2, foreach=False, fused=False)
    losses = []
    for step in range(STEPS):
        total = torch.zeros(())
        timesteps = level_rows(Diffusion.of(SCHEDULER), 0, step, [0, 1])
        for sample, row in enumerate([*rows.subject_rows(step), *rows.prior_rows(step)]):
            with torch.no_grad():
                posterior = parts["vae"].encode(pixels[row.image][None]).latent_dist
                spread = normal_rows((4, 8, 8), 0, "posterior", step, [sample])
                latents = (posterior.mean + posterior.std * spread) * parts["vae"].config.scaling_factor
                ids = tokenizer([PROMPTS[row.prompt]], padding="max_length", max_length=77, return_tensors="pt")
                words = parts["text_encoder"](ids.input_ids).last_hidden_state
            noise = normal_rows((4, 8, 8), 0, "noise", step, [sample])
            kept = alphas[timesteps[sample]]
            noisy = kept.sqrt() * latents + (1 - kept).sqrt() * noise
            total = total + torch.nn.functional.mse_loss(unet(noisy, timesteps[sample], words).sample, noise)
        total.backward()
        torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        losses.append(float(total.detach()))
    return losses


@pytest.mark.parametrize(("precision", "band"), [("fp32", 1e-4), ("bf16", BF16_BAND)])
def test_twenty_losses_are_those_of_a_plain_loop(parts: dict[str, Any], precision: str, band: float) -> None:
    plain = plain_losses({name: copy.deepcopy(network) for name, network in parts.items()})
    assert fast_losses(parts, precision) == pytest.approx(plain, abs=band)
    assert max(plain) - min(plain) > band
