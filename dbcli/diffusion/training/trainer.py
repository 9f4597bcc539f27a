"""The training loop: one equation, one step, and a state that can be taken out and put back exactly."""

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

from dbcli.diffusion.adapters.attach import Trainable, inputs_left_to_autocast, plain_loras
from dbcli.diffusion.conditioning import PromptTable
from dbcli.diffusion.distributed import SINGLE, ProcessGroup
from dbcli.diffusion.families.conditioning import Conditioning, Frame
from dbcli.diffusion.families.family import Denoiser
from dbcli.diffusion.families.process import level_rows
from dbcli.diffusion.images import Latents
from dbcli.diffusion.noise import normal_rows, seed_for
from dbcli.diffusion.precision import AUTOCAST, autocast
from dbcli.diffusion.training import losses
from dbcli.diffusion.training.batches import BatchSampler, Row
from dbcli.diffusion.training.objective import Objective
from dbcli.diffusion.training.optimiser_state import (
    load_optimiser_tensors,
    optimiser_tensors,
    own_averages,
    used_rate,
)
from dbcli.diffusion.training.optimisers import Optimisation, build_optimiser, rate_factor
from dbcli.diffusion.training.row_shard import RowShard, drops
from dbcli.diffusion.training.teacher import Teacher
from dbcli.errors import TrainingDiverged


@dataclass(frozen=True)
class StepInputs:
    """What steps read: latents, prompts, and which rows of both each one takes.

    loss_weights[i] `[1, h, w]` says how much each latent of image i counts; everything alike if None. A teacher's
    predictions are the targets of the class rows; without one they are the noise's (or velocity's). frames[i] is how
    image i came to its size, where the denoiser is to be told of it.
    """

    images: Latents
    prompts: PromptTable
    batches: BatchSampler
    loss_weights: Sequence[torch.Tensor] | torch.Tensor | None = None
    teacher: Teacher | None = None
    frames: Sequence[Frame] = ()


@dataclass(frozen=True)
class LoopSettings:
    """How many steps, of how many micro-batches each, in which precision; the decay of averages, and the run's seed."""

    steps: int
    accumulation: int = 1
    precision: str = "fp32"
    ema: float | None = None
    seed: int = 0


@dataclass(frozen=True)
class StepResult:
    """One finished step: its number (from 1), mean losses, the learning rate used and the seconds it took."""

    step: int
    loss: float
    subject_loss: float
    prior_loss: float | None
    learning_rate: float
    seconds: float


@dataclass
class TrainingState:
    """Everything a resumed run needs beside the frozen base: flat float tensors and plain numbers.

    `seen` counts the changes of settings, and the fallbacks, that the run had behind it; empty where there were none.
    """

    step: int
    weights: dict[str, torch.Tensor]
    optimiser: dict[str, torch.Tensor]
    ema: dict[str, torch.Tensor] = field(default_factory=dict)
    scaler: dict[str, float] = field(default_factory=dict)
    rate_scale: float = 1.0
    seen: dict[str, int] = field(default_factory=dict)

    @property
    def size_bytes(self) -> int:
        """What the tensors take on a disk."""
        return sum(value.nbytes for part in (self.weights, self.optimiser, self.ema) for value in part.values())


class Trainer:
    """A model in training: call step() `loop.steps` times. The ranks of a group share every batch."""

    def __init__(
        self,
        denoiser: Denoiser,
        trainable: Trainable,
        inputs: StepInputs,
        *,
        objective: Objective,
        optimisation: Optimisation,
        loop: LoopSettings,
        group: ProcessGroup = SINGLE,
    ) -> None:
        self.group, self.shard = group, RowShard(group.rank, group.size)
        self.denoiser, self.trainable, self.inputs = denoiser, trainable, inputs
        self.objective, self.optimisation, self.loop = objective, optimisation, loop
        self.device = next(denoiser.network.parameters()).device
        self.done = 0
        # Between the first weight that moves and the last, the model belongs to no step.
        self.is_between_steps = True
        # Below 1 after a run that diverged went back to an earlier checkpoint.
        self.rate_scale = 1.0
        self.parameters = list(trainable.tensors.values())
        self.optimiser = build_optimiser(trainable.tensors, optimisation)
        self.rate_factor = rate_factor(optimisation, loop.steps)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=loop.precision == "fp16")
        # It knows its scale from the first loss on, which a rank may never have: its share of a batch can be empty.
        self.scaler.scale(torch.zeros((), device=self.device))
        self.averages = (
            {name: tensor.detach().clone() for name, tensor in trainable.tensors.items()}
            if loop.ema is not None
            else {}
        )
        parts = [part for module in trainable.modules for part in module.modules()]
        self.has_dropout = any(map(drops, parts))
        self.shard.share_dropout(denoiser.network, in_prompts=self.has_dropout)
        for module in trainable.modules:
            module.train()
        is_cast = loop.precision in AUTOCAST and trainable.method == "lora"
        self.cast_loras = plain_loras(trainable.modules) if is_cast else []

    def step(self) -> StepResult:
        """One optimiser step over `accumulation` micro-batches. The only place where gradients are made.

        Raises TrainingDiverged after a loss that is not a finite number.
        """
        began = time.perf_counter()
        factor = self.rate_factor(self.done) * self.rate_scale
        for group in self.optimiser.param_groups:
            group["lr"] = group["base_rate"] * factor
        parts = []
        # In the backward pass as well, where activations are computed again.
        with self.group.sum_gradients(self.parameters), inputs_left_to_autocast(self.cast_loras):
            for micro in range(self.loop.accumulation):
                micro_step = self.done * self.loop.accumulation + micro
                with self._seeded_dropout(micro_step):
                    part = self.loss(micro_step)
                    # With the fused step weights move as early as in the backward pass.
                    self.is_between_steps = not self.optimisation.fused_backward
                    if part.total.requires_grad:  # a share of a batch may hold no row at all
                        torch.autograd.backward(self.scaler.scale(part.total / self.loop.accumulation))
                parts.append(part)
        self.is_between_steps = False
        with self.group.together():
            self._apply_gradients()
        self.done += 1
        self.is_between_steps = True
        result = self._result(parts, began)
        if not math.isfinite(result.loss):
            raise TrainingDiverged(f"The loss became {result.loss} at step {result.step}.")
        return result

    def loss(self, micro_step: int) -> losses.LossParts:
        """DreamBooth's loss of one micro-batch, subject and class rows in one pass; this process's part of it."""
        batches, teacher = self.inputs.batches, self.inputs.teacher
        subject, prior = batches.subject_rows(micro_step), batches.prior_rows(micro_step)
        whole = subject + prior
        places = self.shard.take(micro_step, len(whole))
        batch, first = [whole[place] for place in places], sum(place < len(subject) for place in places)
        weight, of_rows = self.objective.prior_weight, None if self.group.size == 1 else (len(subject), len(prior))
        if not batch:
            nothing = torch.zeros(0, device=self.device)
            return losses.dreambooth_loss(nothing, nothing, 0, weight, of_rows)
        latents, noise, levels = self._noise_inputs(batch, places, micro_step, first)
        process = self.objective.process
        with autocast(self.loop.precision, self.device):
            noisy = process.noised(latents, noise, levels)
            own_prior = batch[first:]
            taught = teacher.targets(own_prior, noisy[first:], levels[first:]) if teacher and own_prior else None
            conditioning = self._conditioning(whole, batch)
            prediction = self.denoiser(noisy, levels, conditioning)
        target = process.target(latents, noise, levels)
        if taught is not None:
            target = torch.cat([target[:first].float(), losses.teacher_target(prediction[first:], taught)])
        errors = self.objective.errors(prediction, target, levels, self._masks(batch))
        return losses.dreambooth_loss(errors, self.objective.weights(levels), first, weight, of_rows)

    def state(self) -> TrainingState:
        """Everything that changes, checked to be finite; on the CPU not copied, so to be written at once."""
        names = {id(parameter): name for name, parameter in self.trainable.tensors.items()}
        constants = {name: tensor.cpu() for name, tensor in self.trainable.constants.items()}
        averages = {name: value.cpu() for name, value in self.averaged()}
        state = TrainingState(
            step=self.done,
            weights={name: one.detach().cpu() for name, one in self.trainable.tensors.items()} | constants,
            optimiser=optimiser_tensors(self.optimiser, names),
            ema=averages | constants if averages else {},
            scaler=dict(self.scaler.state_dict()),
            rate_scale=self.rate_scale,
        )
        for what, part in (("weights", state.weights), ("optimiser", state.optimiser), ("averages", state.ema)):
            broken = next((name for name, value in part.items() if not bool(torch.isfinite(value).all())), None)
            if broken is not None:
                raise TrainingDiverged(f"After step {self.done} the {what} are no longer finite ({broken}).")
        return state

    def load_state(self, state: TrainingState) -> None:
        """Continues exactly where `state` was taken."""
        with torch.no_grad():
            for name, parameter in self.trainable.tensors.items():
                parameter.copy_(state.weights[name])
            for name, average in self.averages.items():
                average.copy_(state.ema[name])
            for name, constant in self.trainable.constants.items():
                constant.copy_(state.weights[name])
        self.optimiser.zero_grad(set_to_none=True)
        load_optimiser_tensors(self.optimiser, self.trainable.tensors, state.optimiser)
        if state.scaler:
            self.scaler.load_state_dict(state.scaler)
        self.done, self.rate_scale = state.step, state.rate_scale

    def averaged(self) -> Iterable[tuple[str, torch.Tensor]]:
        """The averaged weights, by name, that the run keeps or its optimiser has made; nothing without either."""
        return self.averages.items() or own_averages(self.optimiser, self.trainable.tensors)

    def use_averages(self) -> None:
        """Puts the averaged weights, where there are any, into the model: the result of the run."""
        with torch.no_grad():
            for name, average in self.averaged():
                self.trainable.tensors[name].copy_(average)

    def forget_optimiser(self) -> None:
        """Lets go of what only further steps need: gradients and the optimiser's state, with AdamW twice them."""
        self.optimiser.zero_grad(set_to_none=True)
        self.optimiser.state.clear()

    def _noise_inputs(
        self, batch: list[Row], samples: list[int], micro_step: int, first_class: int
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Latents `[B, C, h, w]`, noise of the same shape and levels `[B]`, on the model's device.

        samples are the rows' places in the whole micro-batch, which their noise follows from.
        """
        seed, shape, teacher = self.loop.seed, self.inputs.images.shape_of(batch[0].image), self.inputs.teacher
        spread = normal_rows(shape, seed, "posterior", micro_step, samples)
        noise = self.objective.noise(shape, seed, micro_step, samples)
        levels = level_rows(self.objective.process, seed, micro_step, samples)
        for place in range(first_class, len(batch)):
            draw = teacher.draw(batch[place]) if teacher is not None else None
            if draw is not None:
                spread[place], noise[place], levels[place] = draw.spread, draw.noise, draw.level
        latents = self.inputs.images.draw([row.image for row in batch], spread)
        values = (latents, noise, levels)
        # Apple's GPUs would copy from memory that is free again by then.
        at_once = self.device.type != "cuda"
        latents, noise, levels = (tensor.to(self.device, non_blocking=not at_once) for tensor in values)
        return latents, noise, levels

    def _conditioning(self, whole: list[Row], batch: list[Row]) -> Conditioning:
        """That of the rows `batch` that this process takes of a whole micro-batch."""
        found = self.shard.conditioning(self.inputs.prompts, [row.prompt for row in whole])
        frames = self.inputs.frames
        return found.framed([frames[row.image] for row in batch]) if frames else found

    def _masks(self, batch: list[Row]) -> torch.Tensor | None:
        weights = self.inputs.loss_weights
        return None if weights is None else torch.stack([weights[row.image] for row in batch]).to(self.device)

    def _apply_gradients(self) -> None:
        if self.optimisation.gradient_clip > 0:
            self.scaler.unscale_(self.optimiser)
            self._clip(self.optimisation.gradient_clip)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.optimiser.zero_grad(set_to_none=True)
        if self.averages and self.loop.ema is not None:
            # Early averages would remember the start; the usual warm-up lets them forget it.
            decay = min(self.loop.ema, (1 + self.done) / (10 + self.done))
            with torch.no_grad():
                for name, average in self.averages.items():
                    average.lerp_(self.trainable.tensors[name], 1 - decay)

    def _clip(self, bound: float) -> None:
        norm = torch.nn.utils.get_total_norm([one.grad for one in self.parameters if one.grad is not None])
        # A GPU would have to be waited for to know. Elsewhere gradients within the bound need no pass over all of them.
        if norm.device.type != "cpu" or not norm <= bound:
            torch.nn.utils.clip_grads_with_norm_(self.parameters, bound, norm)

    def _result(self, parts: list[losses.LossParts], began: float) -> StepResult:
        def mean(values: list[torch.Tensor]) -> float:
            return float(torch.stack(values).mean())

        priors = [part.prior for part in parts if part.prior is not None]
        own = (
            mean([part.total.detach() for part in parts]),
            mean([part.subject for part in parts]),
            mean(priors) if priors else 0.0,
        )
        total, subject, prior = map(sum, zip(*self.group.gather(own), strict=True))
        return StepResult(
            step=self.done,
            loss=total,
            subject_loss=subject,
            prior_loss=prior if priors else None,
            learning_rate=used_rate(self.optimiser),
            seconds=time.perf_counter() - began,
        )

    @contextmanager
    def _seeded_dropout(self, micro_step: int) -> Iterator[None]:
        """Dropout draws from torch's global generator: it is set by the step's number and put back."""
        if not self.has_dropout:
            yield
            return
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(seed_for(self.loop.seed, "dropout", micro_step))
            yield
