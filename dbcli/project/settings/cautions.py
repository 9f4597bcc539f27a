"""Settings that are allowed, each and together, and that a person hardly means."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dbcli.project.settings.profile_settings import Profile, TrainSettings


def cautions(profile: Profile) -> list[str]:
    """Return a line for every setting that makes a run other than it seems: its key, its value, what comes of it."""
    return [
        *_of_rates(profile.train),
        *_of_warmup(profile.train),
        *_of_schedule(profile.train),
        *_of_previews(profile),
        *_of_adapter(profile),
    ]


def _of_rates(train: TrainSettings) -> Iterator[str]:
    text_rate = train.text_encoder_learning_rate
    if train.learning_rate == 0:
        rest = "" if not train.text_encoder or not text_rate else " but the text encoder"
        yield f"train.learning_rate is 0: nothing is learnt{rest}."
    elif train.text_encoder and text_rate == 0:
        yield "train.text_encoder_learning_rate is 0: the text encoder learns nothing."
    if text_rate is not None and not train.text_encoder:
        yield f"train.text_encoder_learning_rate is {text_rate:g} and train.text_encoder is off: it is not trained."


def _of_warmup(train: TrainSettings) -> Iterator[str]:
    if train.warmup_steps and train.warmup_steps >= train.steps:
        # The rate of step n is that of the n - 1 steps before it.
        reached = train.learning_rate * (train.steps - 1) / train.warmup_steps
        yield (
            f"train.warmup_steps is {train.warmup_steps} and the run has {train.steps} steps: the learning rate gets "
            f"to {reached:.3g} and never to {train.learning_rate:.3g}."
        )


def _of_schedule(train: TrainSettings) -> Iterator[str]:
    usual = type(train)()
    for name, value in (("cosine-restarts", ("schedule_cycles",)), ("polynomial", ("schedule_power", "schedule_end"))):
        for key in value:
            if train.schedule != name and getattr(train, key) != getattr(usual, key):
                yield f"train.{key} is {getattr(train, key):g} and is for train.schedule={name}, not {train.schedule}."
    if train.schedule == "cosine-restarts" and train.schedule_cycles == 1:
        yield "train.schedule_cycles is 1: cosine-restarts without a restart is cosine."
    if train.schedule == "cosine-restarts" and train.schedule_cycles > train.steps:
        yield (
            f"train.schedule_cycles is {train.schedule_cycles} and the run has {train.steps} steps: "
            "its cycles are shorter than a step."
        )


def _of_previews(profile: Profile) -> Iterator[str]:
    train = profile.train
    if train.preview_prompt is not None and not train.preview_every:
        yield "train.preview_prompt is given and train.preview_every is 0: no preview is generated."
    if train.preview_every > train.steps:
        yield f"train.preview_every is {train.preview_every} and the run has {train.steps} steps: no previews."


def _of_adapter(profile: Profile) -> Iterator[str]:
    usual = type(profile.lora)()
    if profile.method == "lora" and not profile.train.text_encoder and profile.lora.text_targets != usual.text_targets:
        yield "lora.text_targets is given and train.text_encoder is off: the text encoder gets no adapter."
    if profile.method != "lora" and profile.lora.targets != usual.targets:
        yield f"lora.targets is given and the method is {profile.method}: nothing gets an adapter."
