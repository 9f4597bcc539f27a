"""Optimisers and learning-rate schedules by name."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import torch

from dbcli.diffusion.precision import computes_in_bf16
from dbcli.diffusion.training.muon import Float32Muon
from dbcli.diffusion.training.weight_by_weight import OptimizerInBackward
from dbcli.errors import ConfigError
from dbcli.hints import installing

# Our name -> diffusers' name of a schedule with warm-up.
SCHEDULES = {
    "constant": "constant_with_warmup",
    "linear": "linear",
    "cosine": "cosine",
    "cosine-restarts": "cosine_with_restarts",
}
# AdamW with moments in bfloat16.
HALVED = "adamw16bit"
# In the names of PEFT's B matrices, the ones that begin at zero.
B_MARK = ".lora_B"
# For matrices that a layer multiplies by; AdamW takes the rest, and tables of vectors, which nothing is multiplied by.
MUON, TABLES = "muon", ("token_embedding.weight", "position_embedding.weight", "embed_tokens.weight")


@dataclass(frozen=True)
class Optimisation:
    """How weights follow their gradients. Rates are per step, betas and decay as in AdamW (Loshchilov 2019).

    part_rates are the rates of the parts of the model that have their own, by name. b_rate_ratio multiplies the rate of
    a LoRA's B matrices (LoRA+: Hayou et al. 2024, arXiv:2402.12354).

    schedule_cycles is that of cosine-restarts; polynomial goes from 1 to schedule_end as (1 - t)^schedule_power.

    fused_backward and stochastic_rounding take the weights one by one (OptimizerInBackward); seed is the rounding's.
    """

    learning_rate: float
    part_rates: Mapping[str, float] = field(default_factory=dict)
    b_rate_ratio: float = 1.0
    optimizer: str = "adamw"
    beta1: float = 0.9
    beta2: float = 0.999
    weight_decay: float = 1e-2
    epsilon: float = 1e-8
    schedule: str = "constant"
    schedule_cycles: int = 3
    schedule_power: float = 2.0
    schedule_end: float = 0.0
    warmup_steps: int = 0
    gradient_clip: float = 1.0
    fused_backward: bool = False
    stochastic_rounding: bool = False
    seed: int = 0


def _adamw(groups: list[dict[str, Any]], plan: Optimisation) -> torch.optim.Optimizer:
    return torch.optim.AdamW(
        groups, betas=(plan.beta1, plan.beta2), eps=plan.epsilon, weight_decay=plan.weight_decay, fused=True
    )


def _adamw_8bit(groups: list[dict[str, Any]], plan: Optimisation) -> torch.optim.Optimizer:
    optimiser: torch.optim.Optimizer = _of_package("bitsandbytes", plan).optim.AdamW8bit(
        groups, betas=(plan.beta1, plan.beta2), eps=plan.epsilon, weight_decay=plan.weight_decay
    )
    return optimiser


def _prodigy(groups: list[dict[str, Any]], plan: Optimisation) -> torch.optim.Optimizer:
    """AdamW whose rate follows from how far the weights came (Mishchenko and Defazio 2024), as its authors set it."""
    optimiser: torch.optim.Optimizer = _of_package("prodigyopt", plan).Prodigy(
        groups,
        betas=(plan.beta1, plan.beta2),
        eps=plan.epsilon,
        # Both are what its authors recommend for diffusion models; the second is for rates that start at 0.
        use_bias_correction=True,
        safeguard_warmup=True,
    )
    # Given to the constructor, it would be announced on stdout, where only results belong.
    for group in optimiser.param_groups:
        group["weight_decay"] = plan.weight_decay
    return optimiser


def _schedule_free(groups: list[dict[str, Any]], plan: Optimisation) -> torch.optim.Optimizer:
    """Schedule-free AdamW (Defazio et al. 2024), left in training mode: see `optimiser_state.own_averages`."""
    from dbcli.diffusion.training.schedule_free import FusedAdamWScheduleFree

    optimiser: torch.optim.Optimizer = FusedAdamWScheduleFree(
        groups, betas=(plan.beta1, plan.beta2), eps=plan.epsilon, weight_decay=plan.weight_decay
    )
    return optimiser


def _muon(groups: list[dict[str, Any]], plan: Optimisation) -> torch.optim.Optimizer:
    """Muon (Jordan et al. 2024), its steps as long as AdamW's (Liu et al. 2025, section 2.2), so rates are the same."""
    make = torch.optim.Muon if computes_in_bf16(groups[0]["params"][0].device) else Float32Muon
    return make(groups, weight_decay=plan.weight_decay, adjust_lr_fn="match_rms_adamw")


def _of_package(name: str, plan: Optimisation) -> Any:
    """An optional package. Raises ConfigError where it is not installed."""
    try:
        return import_module(name)
    except ImportError as fault:
        raise ConfigError(
            f"train.optimizer is {plan.optimizer}, but {name} is not installed.", hint=installing(name)
        ) from fault


def _adafactor(groups: list[dict[str, Any]], plan: Optimisation) -> torch.optim.Optimizer:
    from transformers import optimization

    # The rate is per step, as AdamW's is, and not relative to each weight's size: one recipe serves both.
    make: Any = optimization.Adafactor
    optimiser: torch.optim.Optimizer = make(
        groups, weight_decay=plan.weight_decay, scale_parameter=False, relative_step=False
    )
    return optimiser


OPTIMISERS: dict[str, Callable[[list[dict[str, Any]], Optimisation], torch.optim.Optimizer]] = {
    "adamw": _adamw,
    HALVED: _adamw,
    "adamw8bit": _adamw_8bit,
    "adafactor": _adafactor,
    "prodigy": _prodigy,
    "schedulefree": _schedule_free,
    MUON: _muon,
}


def build_optimiser(tensors: Mapping[str, torch.nn.Parameter], plan: Optimisation) -> torch.optim.Optimizer:
    """An optimiser with a group for every part that learns, at its own rate; a tensor's name begins with its part's.

    Where B matrices have another rate than the rest of a part, they are a group of their own.
    """
    members: dict[tuple[str, float], list[torch.nn.Parameter]] = {}
    for name, tensor in tensors.items():
        ratio = plan.b_rate_ratio if B_MARK in name else 1.0
        members.setdefault((name.partition(".")[0], ratio), []).append(tensor)
    rates = {(part, ratio): plan.part_rates.get(part, plan.learning_rate) * ratio for part, ratio in members}
    groups: list[dict[str, Any]] = [
        {"params": weights, "lr": rates[key], "base_rate": rates[key]} for key, weights in members.items()
    ]
    make = OPTIMISERS[plan.optimizer]
    halves = plan.optimizer == HALVED
    if not (plan.fused_backward or plan.stochastic_rounding or halves or plan.optimizer == MUON):
        return make(groups, plan)
    others = {id(one) for name, one in tensors.items() if plan.optimizer == MUON and not takes_muon(name, one)}

    def make_one(group: list[dict[str, Any]]) -> torch.optim.Optimizer:
        return _adamw(group, plan) if id(group[0]["params"][0]) in others else make(group, plan)

    return OptimizerInBackward(
        groups,
        make_one,
        in_backward=plan.fused_backward,
        rounding_seed=plan.seed if plan.stochastic_rounding or halves else None,
        halves_moments=halves,
    )


def takes_muon(name: str, tensor: torch.Tensor) -> bool:
    """Whether a weight is Muon's, where that is the optimiser, and not AdamW's."""
    return tensor.ndim == 2 and not name.endswith(TABLES)


def rate_factor(plan: Optimisation, steps: int) -> Callable[[int], float]:
    """The schedule as a function of the step: what the learning rates are multiplied by, 1.0 at full rate."""
    from diffusers.optimization import get_polynomial_decay_schedule_with_warmup, get_scheduler

    # Only the shape is wanted. The library reads a rate from its optimiser, which none of ours has at 1.0, and its own
    # step counter would be one more thing to save and restore.
    bare = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    length: dict[str, Any] = {"num_warmup_steps": plan.warmup_steps, "num_training_steps": steps}
    if plan.schedule == "polynomial":
        schedule = get_polynomial_decay_schedule_with_warmup(
            bare, **length, lr_end=plan.schedule_end, power=plan.schedule_power
        )
    else:
        schedule = get_scheduler(SCHEDULES[plan.schedule], bare, **length, num_cycles=plan.schedule_cycles)
    factor: Callable[[int], float] = schedule.lr_lambdas[0]
    return factor
