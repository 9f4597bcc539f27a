"""Trainers of a UNet of a few hundred thousand weights, and what tests ask of their loss curves."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import cache
from typing import Any

import torch
from torch import nn

from dbcli.diffusion.adapters.attach import LoraOptions, Trainable, add_lora, make_full
from dbcli.diffusion.bases.quantized import shrink
from dbcli.diffusion.families.conditioning import Conditioning
from dbcli.diffusion.families.family import Denoiser
from dbcli.diffusion.families.process import Diffusion
from dbcli.diffusion.families.sd import SD
from dbcli.diffusion.images import Posterior
from dbcli.diffusion.precision import recomputed
from dbcli.diffusion.training.batches import BatchSampler, SentenceData, SubjectData
from dbcli.diffusion.training.objective import Objective
from dbcli.diffusion.training.optimisers import Optimisation
from dbcli.diffusion.training.trainer import LoopSettings, StepInputs, Trainer

SCHEDULER = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000}
STEPS, RATE = 20, 1e-3
Curve = list[float]


@cache
def small_unet() -> Any:
    """A UNet with attention, convolutions and both ways down and up, of a few hundred thousand weights."""
    from diffusers import UNet2DConditionModel

    with torch.random.fork_rng():
        torch.manual_seed(0)
        return UNet2DConditionModel(
            sample_size=8,
            block_out_channels=(32, 64),
            layers_per_block=1,
            cross_attention_dim=32,
            attention_head_dim=4,
            norm_num_groups=8,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        )


class FixedPrompts:
    """Conditioning that does not learn."""

    def rows(self, indices: Any) -> Conditioning:
        return Conditioning(torch.randn(2, 8, 32, generator=torch.Generator().manual_seed(2))[list(indices)])


def full(dtype: torch.dtype = torch.float32, checkpointing: bool = False) -> tuple[Any, Trainable]:
    unet = copy.deepcopy(small_unet())
    if checkpointing:
        unet.enable_gradient_checkpointing(recomputed)
    return unet, make_full({"unet": unet, "text_encoder": nn.Identity()}, train_text=False, dtype=dtype)


def lora(kept: str | None = None, offload: bool = False, **how: Any) -> tuple[Any, Trainable]:
    unet = copy.deepcopy(small_unet())
    if kept is not None:
        shrink(unet, kept, ends=SD.ends, offload=offload)
    options = LoraOptions(rank=4, alpha=4.0, targets=["to_q", "to_v"], text_targets=["q_proj"])
    return unet, add_lora({"unet": unet, "text_encoder": nn.Identity()}, replace(options, **how))


def trainer_for(model: tuple[Any, Trainable], *, precision: str = "fp32", steps: int = STEPS, **plan: Any) -> Trainer:
    mean = torch.randn(4, 4, 8, 8, generator=torch.Generator().manual_seed(5))
    return Trainer(
        Denoiser(model[0], SD.denoise, 8),
        model[1],
        StepInputs(
            Posterior(mean, torch.full_like(mean, 0.1)),
            FixedPrompts(),
            BatchSampler([SubjectData([[0], [1]], [SentenceData([0, 0], [0, 0], (2, 3), 1)])], batch_size=1, seed=0),
        ),
        objective=Objective(Diffusion.of(SCHEDULER)),
        optimisation=Optimisation(**{"learning_rate": RATE, "gradient_clip": 0.0, **plan}),
        loop=LoopSettings(steps=steps, precision=precision),
    )


def run(trainer: Trainer, until: int | None = None) -> Curve:
    return [trainer.step().loss for _ in range(trainer.done, until or trainer.loop.steps)]


@cache
def plain(optimizer: str = "adamw") -> tuple[float, ...]:
    return tuple(run(trainer_for(full(), optimizer=optimizer)))


@cache
def plain_lora() -> tuple[float, ...]:
    return tuple(run(trainer_for(lora())))


def apart(one: Any, other: Any) -> float:
    """The largest difference between two loss curves, as a share of the first's mean."""
    differences = [abs(a - b) for a, b in zip(one, other, strict=True)]
    return max(differences) / (sum(one) / len(one))


def learnt(curve: Any) -> bool:
    return sum(curve[-5:]) < 0.98 * sum(curve[:5])


def weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in trainer.trainable.tensors.items()}
