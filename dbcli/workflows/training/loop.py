"""The steps of a run: what is trained and how, checkpoints and previews on the way, every step on record."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dbcli.diffusion.distributed import SINGLE, ProcessGroup
from dbcli.errors import Interrupted, TrainingDiverged
from dbcli.project.files.layout import Layout
from dbcli.project.runs.run_store import RunRecord, append_event
from dbcli.project.settings.profile_settings import Profile
from dbcli.workflows.best_effort import attempted
from dbcli.workflows.memory.errors import is_out_of_memory
from dbcli.workflows.probes.probes import Probing
from dbcli.workflows.progress import Progress, Stage
from dbcli.workflows.signals import StopSignal
from dbcli.workflows.training.checkpoints import Checkpoints
from dbcli.workflows.training.data import Lesson

if TYPE_CHECKING:
    from dbcli.diffusion.adapters.attach import Trainable
    from dbcli.diffusion.bases.base import Base
    from dbcli.diffusion.training.batches import BatchSampler
    from dbcli.diffusion.training.teacher import Teacher
    from dbcli.diffusion.training.trainer import StepResult, Trainer

OPTIMISATION_KEYS = (
    "learning_rate",
    "optimizer",
    "beta1",
    "beta2",
    "weight_decay",
    "epsilon",
    "schedule",
    "schedule_cycles",
    "schedule_power",
    "schedule_end",
    "warmup_steps",
    "gradient_clip",
    "fused_backward",
    "stochastic_rounding",
    "seed",
)


def noise_seed(profile: Profile, generation: int) -> int:
    """The seed of a run's noise and orders: its own, unless it goes on from `generation` runs before it."""
    from dbcli.diffusion.noise import seed_for

    seed = profile.train.seed
    # A run that goes on must not meet the noise and the order of the run before once more.
    return seed if generation == 0 else seed_for(seed, "continued", generation)


def row_plan(lesson: Lesson, profile: Profile, record: RunRecord) -> BatchSampler:
    """Which pictures each step of a run sees; the last subjects of the lesson are those it rehearses."""
    from dbcli.diffusion.training.batches import BatchSampler

    return BatchSampler(
        lesson.materials,
        batch_size=profile.train.batch_size,
        seed=noise_seed(profile, record.generation),
        rehearsed=sum(one.rehearsed for one in record.subjects),
        rehearsal_share=profile.train.rehearsal_share,
    )


def build_trainer(
    base: Base,
    trainable: Trainable,
    lesson: Lesson,
    rows: BatchSampler,
    teacher: Teacher | None,
    profile: Profile,
    group: ProcessGroup = SINGLE,
) -> Trainer:
    """Joins a base, a lesson and a profile's numbers into a trainer, of one rank of a group."""
    from dbcli.diffusion.compile import compile_unet
    from dbcli.diffusion.conditioning import FrozenPrompts, LearningPrompts
    from dbcli.diffusion.offload import idle_in_training, offload
    from dbcli.diffusion.schedulers.samplers import alphas_of
    from dbcli.diffusion.training.optimisers import Optimisation
    from dbcli.diffusion.training.trainer import LoopSettings, Objective, StepInputs, Trainer

    train, device = profile.train, base.unet.device
    table = LearningPrompts if trainable.trains_text else FrozenPrompts
    settings = train.model_dump()
    prompts = table(base.tokenizer, base.text_encoder, lesson.prompts, device)  # type: ignore[arg-type]
    offload(*idle_in_training(base, trains_text=trainable.trains_text))
    if train.compile:
        compile_unet(base.unet)
    return Trainer(
        base.unet,
        trainable,
        StepInputs(lesson.images, prompts, rows, lesson.loss_weights, teacher),
        objective=Objective(
            prediction_type=base.prediction_type,
            alphas_cumprod=alphas_of(base.scheduler_config).to(device),
            prior_weight=profile.prior.weight,
            min_snr_gamma=train.min_snr_gamma,
            offset_noise=train.offset_noise,
        ),
        optimisation=Optimisation(
            text_learning_rate=train.text_encoder_learning_rate,
            **{key: settings[key] for key in OPTIMISATION_KEYS},
        ),
        loop=LoopSettings(train.steps, train.accumulation, train.precision, train.ema, rows.seed),
        group=group,
    )


def run_loop(
    layout: Layout,
    record: RunRecord,
    base: Base,
    trainer: Trainer,
    profile: Profile,
    progress: Progress,
    stop: StopSignal,
    probing: Probing | None = None,
    rate_scale: float = 1.0,
) -> bool:
    """The steps, from the newest checkpoint on; True at the end, False after a signal, with a checkpoint written.

    The end is the last step, or where `probing` finds that nothing rises any longer. A run that has no checkpoint yet
    begins at `rate_scale` of its learning rates.

    Raises TrainingDiverged or BeginAgain by the profile's policy, with the last sound checkpoint still there.
    """
    group = trainer.group
    keeper = Checkpoints(layout, record, trainer, profile, progress, group)
    if keeper.load_newest():
        group.on_main(lambda: append_event(layout, record.name, {"event": "resumed", "step": trainer.done}))
    else:
        trainer.rate_scale = rate_scale
        if profile.train.on_divergence == "lower-rate":
            group.on_main(keeper.save)  # the beginning is a place to go back to as well

    def save_if_due(step: int) -> None:
        every = profile.train.checkpoint_every
        if (every and step % every == 0) or step == profile.train.steps or stop():
            keeper.save()

    def after_step(step: int) -> None:
        group.on_main(lambda: save_if_due(step))
        if probing is not None:
            probing.after_step(trainer, stage, stop)
            on_step.tell()  # the probe's own words are over with the probe
        if group.is_main and profile.train.preview_every and step % profile.train.preview_every == 0:
            _preview(layout, record, base, trainer, profile, progress, stop)

    with progress.stage(f"Training {record.name}", profile.train.steps) as stage:
        stage.advance(trainer.done)
        on_step = _Reporter(layout, record, stage, base)
        if probing is not None:
            probing.after_step(trainer, stage, stop)  # a kill may have come before the probe of this step
        finished = _to_the_end(keeper, profile, probing, on_step, after_step, stop)
    if group.is_main and record.step != trainer.done:
        keeper.save()  # the signal came just after the step had asked for it, or the end came early
    return finished


def _to_the_end(
    keeper: Checkpoints,
    profile: Profile,
    probing: Probing | None,
    on_step: Callable[[StepResult], None],
    after_step: Callable[[int], None],
    stop: StopSignal,
) -> bool:
    """Trains until nothing is left to do, or a signal came; whether the run is over."""
    from dbcli.diffusion.training.trainer import train

    trainer, group = keeper.trainer, keeper.group

    def step_made(result: StepResult) -> None:
        on_step(result)
        keeper.add(result)

    def is_over() -> bool:
        if probing is None:
            return trainer.done >= profile.train.steps
        # A probe of the last step that a signal cut short is made when the run goes on.
        is_last = trainer.done >= profile.train.steps and not probing.is_due(trainer.done)
        return is_last or probing.ends_at(trainer.done)

    def ends() -> bool:
        return stop.anywhere() or group.on_main(is_over)

    while not ends():
        try:
            train(
                trainer,
                on_step=lambda result: group.on_main(lambda: step_made(result)),
                after_step=after_step,
                should_stop=ends,
            )
        except TrainingDiverged as error:
            keeper.recover(error)
            if probing is not None and group.is_main:
                probing.rolled_back(trainer.done)
        except Exception as error:
            if group.is_main and is_out_of_memory(error):
                keeper.rescue()
            raise
    return group.on_main(is_over)


@dataclass
class _Reporter:
    """Writes each step into events.jsonl and shows it: losses, speed, memory."""

    layout: Layout
    record: RunRecord
    stage: Stage
    base: Base
    line: str = ""

    def tell(self) -> None:
        """Shows the numbers of the last step, once more where something else was shown meanwhile."""
        self.stage.tell(self.line)

    def __call__(self, result: StepResult) -> None:
        from dbcli.diffusion.devices import peak_memory_bytes

        layout, record, stage = self.layout, self.record, self.stage
        record.loss = result.loss
        measured = {
            "loss": result.loss,
            "subject_loss": result.subject_loss,
            "prior_loss": result.prior_loss,
            "lr": result.learning_rate,
            "seconds": round(result.seconds, 4),
        }
        append_event(layout, record.name, {"step": result.step, **measured})
        known = {name: value for name, value in measured.items() if value is not None}
        stage.measure(record.name, result.step, known)
        prior = "" if result.prior_loss is None else f" prior {result.prior_loss:.4f}"
        memory = peak_memory_bytes(self.base.unet.device) / 1e9  # type: ignore[arg-type]
        stage.advance()
        self.line = f"loss {result.subject_loss:.4f}{prior} · {1 / result.seconds:.2f} it/s · {memory:.1f} GB"
        self.tell()


def _preview(
    layout: Layout,
    record: RunRecord,
    base: Base,
    trainer: Trainer,
    profile: Profile,
    progress: Progress,
    stop: Callable[[], bool],
) -> None:
    """One picture of each subject as the model stands, into the run's previews; left out once a signal came."""
    from dbcli.workflows.images.generated import preview

    step = trainer.done
    for module in trainer.trainable.modules:
        module.eval()
    with suppress(Interrupted):
        attempted(f"The preview of step {step}", progress, lambda: preview(layout, record, base, profile, step, stop))
    for module in trainer.trainable.modules:
        module.train()
