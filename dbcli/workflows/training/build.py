"""A run's trainer, built of a base, its training data and the numbers of a profile."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbcli.workflows.models.base_demands import check_noise, check_second_rate
from dbcli.workflows.run_context import RunContext
from dbcli.workflows.training.data import TrainingData

if TYPE_CHECKING:
    from dbcli.diffusion.adapters.attach import Trainable
    from dbcli.diffusion.bases.base import Base
    from dbcli.diffusion.training.batches import BatchSampler
    from dbcli.diffusion.training.teacher import Teacher
    from dbcli.diffusion.training.trainer import Trainer


def batch_sampler(run: RunContext, data: TrainingData) -> BatchSampler:
    """Which images each step of a run sees; the last subjects of the data are those it rehearses."""
    from dbcli.diffusion.noise import seed_for
    from dbcli.diffusion.training.batches import BatchSampler

    train, generation = run.profile.train, run.record.generation
    return BatchSampler(
        data.subjects,
        batch_size=train.batch_size,
        # A run that continues another must not meet that one's noise and order once more.
        seed=train.seed if generation == 0 else seed_for(train.seed, "continued", generation),
        rehearsed=sum(one.rehearsed for one in run.record.subjects),
        rehearsal_share=train.rehearsal_share,
        caption_share=run.profile.images.caption_share,
        empty_share=run.profile.prior.empty_share,
        photo_empty_share=run.profile.images.empty_share,
        empty_prompt=data.empty_prompt,
        orders=data.orders,
        sizes=data.sizes,
    )


def build_trainer(
    run: RunContext,
    base: Base,
    trainable: Trainable,
    data: TrainingData,
    batches: BatchSampler,
    teacher: Teacher | None,
) -> Trainer:
    """Joins a base, what of it learns, the data and a profile's numbers into a trainer, of one rank of a group."""
    import torch

    from dbcli.diffusion.bases.stored_layers import keep_in
    from dbcli.diffusion.compile import compile_unet
    from dbcli.diffusion.conditioning import FrozenPrompts, LearningPrompts
    from dbcli.diffusion.devices import idle_in_training, offload
    from dbcli.diffusion.precision import precision_on
    from dbcli.diffusion.training.losses import PseudoHuber
    from dbcli.diffusion.training.objective import Objective
    from dbcli.diffusion.training.optimisers import Optimisation
    from dbcli.diffusion.training.trainer import LoopSettings, StepInputs, Trainer

    train, device = run.profile.train, next(base.unet.parameters()).device
    # Weights that move in the backward pass of each rank would never see the sum of all gradients.
    assert run.group.size == 1 or not train.fused_backward
    check_noise(base.name, run.profile, begins_with_noise=base.process.begins_with_noise)
    table = LearningPrompts if trainable.trains_text else FrozenPrompts
    prompts = table(base, data.prompts, device)
    offload(*idle_in_training(base, trains_text=trainable.trains_text))
    precision = precision_on(train.precision, device)
    # Only where probes draw in it, too: in float32 they would see what the rounding took.
    if precision == "bf16" and precision_on(run.profile.draw.precision, device) == "bf16":
        keep_in(base.unet, torch.bfloat16)
    if train.compile:
        compile_unet(base.unet)
    return Trainer(
        base.denoiser,
        trainable,
        StepInputs(data.images, prompts, batches, data.loss_weights, teacher, data.frames),
        objective=Objective(
            process=base.process.to(device),
            prior_weight=run.profile.prior.weight,
            min_snr_gamma=train.min_snr_gamma,
            debiased=train.debiased_estimation,
            huber=PseudoHuber(train.huber_schedule, train.huber_c) if train.loss == "pseudo-huber" else None,
            offset_noise=train.offset_noise,
            multires_noise=train.multires_noise,
        ),
        optimisation=Optimisation(
            learning_rate=train.learning_rate,
            part_rates=_text_rates(run, base),
            b_rate_ratio=run.profile.lora.b_rate_ratio,
            optimizer=train.optimizer,
            beta1=train.beta1,
            beta2=train.beta2,
            weight_decay=train.weight_decay,
            epsilon=train.epsilon,
            schedule=train.schedule,
            schedule_cycles=train.schedule_cycles,
            schedule_power=train.schedule_power,
            schedule_end=train.schedule_end,
            warmup_steps=train.warmup_steps,
            gradient_clip=train.gradient_clip,
            fused_backward=train.fused_backward,
            stochastic_rounding=train.stochastic_rounding,
            seed=train.seed,
        ),
        loop=LoopSettings(train.steps, train.accumulation, precision, train.ema, batches.seed),
        group=run.group,
    )


def _text_rates(run: RunContext, base: Base) -> dict[str, float]:
    """The text encoders' own rates, where the profile has some; another than the first may have one of its own."""
    train = run.profile.train
    rate, other = train.text_encoder_learning_rate, train.text_encoder_2_learning_rate
    first, *others = base.encoders
    # One that began before anybody was told goes on as it was.
    if not others and run.record.step == 0:
        check_second_rate(base.name, run.profile)
    rates = {first: rate} | dict.fromkeys(others, rate if other is None else other)
    return {name: found for name, found in rates.items() if found is not None}
