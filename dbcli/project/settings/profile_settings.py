"""The settings of a profile: every one with its default, its range and its reason."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator

from dbcli.project.files.records import Whole
from dbcli.project.prompts.identifiers import check_template
from dbcli.project.seeds import LAST_SEED, RANDOM, is_seed

# Given as context where a run's frozen settings are read: some hold seeds of more than 32 bits, and stay readable.
FROZEN = {"frozen": True}


def _checked_seed(seed: int, info: ValidationInfo) -> int:
    if not is_seed(seed) and not (info.context or {}).get("frozen"):
        raise ValueError(f"should be a whole number from 0 to {LAST_SEED}, or {RANDOM} for a random one")
    return seed


Seed = Annotated[Whole, AfterValidator(_checked_seed)]
Sampler = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9+_-]{0,31}$")]
DrawPrecision = Literal["auto", "fp32", "bf16", "fp16"]
Timesteps = Literal["noisiest", "published"]
Positive = Annotated[Whole, Field(ge=1)]


def _as_list(value: object) -> object:
    """`to_q,to_k` for `[to_q, to_k]`: no name of a layer holds a comma."""
    return [part.strip() for part in value.split(",")] if isinstance(value, str) else value


def _as_one(value: object) -> object:
    """A prompt alone for a list of one."""
    return [value] if isinstance(value, str) else value


Targets = Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1), BeforeValidator(_as_list)]


class Section(BaseModel):
    """One group of settings."""

    # Strict: a number in quotes or `true` for a number is a slip that should be shown, not mended.
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class TrainSettings(Section):
    steps: Positive = Field(default=800, le=10_000_000, description="optimiser steps")
    batch_size: Positive = Field(default=1, le=4096, description="subject photos a forward pass")
    accumulation: Positive = Field(default=1, le=4096, description="forward passes an optimiser step")
    learning_rate: float = Field(default=1e-6, ge=0, le=10, description="of the UNet or its adapter")
    text_encoder: bool = Field(default=True, description="train the text encoder too")
    text_encoder_learning_rate: float | None = Field(
        default=None, ge=0, le=10, description="of the text encoder; the same as learning_rate if left out"
    )
    optimizer: Literal["adamw", "adamw8bit", "adafactor"] = Field(default="adamw", description="the optimiser")
    beta1: float = Field(default=0.9, ge=0, lt=1, description="AdamW's first moment decay")
    beta2: float = Field(default=0.999, ge=0, lt=1, description="AdamW's second moment decay")
    weight_decay: float = Field(default=1e-2, ge=0, le=1, description="AdamW's weight decay")
    epsilon: float = Field(default=1e-8, gt=0, le=1, description="AdamW's epsilon")
    schedule: Literal["constant", "linear", "cosine", "cosine-restarts", "polynomial"] = Field(
        default="constant", description="how the learning rate changes after the warm-up"
    )
    schedule_cycles: Positive = Field(
        default=3, le=10_000, description="with schedule=cosine-restarts: how often the rate falls from full to 0"
    )
    schedule_power: float = Field(
        default=2.0, gt=0, le=10, description="with schedule=polynomial: power of the decay; 1 is linear"
    )
    schedule_end: float = Field(
        default=0.0, ge=0, lt=1, description="with schedule=polynomial: share of the learning rate at the last step"
    )
    warmup_steps: Whole = Field(default=0, ge=0, description="steps in which the learning rate rises from 0")
    gradient_clip: float = Field(default=1.0, ge=0, description="largest gradient norm; 0 switches clipping off")
    gradient_checkpointing: bool = Field(default=False, description="less memory, about a third slower")
    fused_backward: bool = Field(
        default=False,
        description="update each weight inside the backward pass, so that gradients never all live at once; "
        "needs gradient_clip=0 and accumulation=1",
    )
    stochastic_rounding: bool = Field(
        default=False, description="weights in bf16, rounded by chance; method full with precision=bf16"
    )
    precision: Literal["fp32", "bf16", "fp16"] = Field(default="fp32", description="of the forward pass")
    compile: bool = Field(
        default=False, description="compile the UNet before the first step: minutes, won back in long runs on a GPU"
    )
    ema: float | None = Field(default=None, gt=0, lt=1, description="decay of the moving average of the weights")
    min_snr_gamma: float | None = Field(default=None, gt=0, description="min-SNR weights (Hang et al.), 5 is usual")
    offset_noise: float = Field(default=0.0, ge=0, le=1, description="noise shared by all pixels of a channel")
    on_divergence: Literal["stop", "lower-rate"] = Field(
        default="stop",
        description="after a loss or weight that is not finite: stop, or go back a checkpoint at half the rate",
    )
    rehearsal_share: float = Field(
        default=0.25, ge=0, le=0.9, description="with --from: what share of the photo rows shows earlier subjects"
    )
    checkpoint_every: Whole = Field(default=200, ge=0, description="steps between checkpoints; 0: only at the end")
    keep_checkpoints: Positive = Field(default=2, description="older checkpoints are removed")
    keep_finished: Literal["weights", "all"] = Field(
        default="weights",
        description="what a finished run keeps of its checkpoints: weights to generate with, or all that resuming "
        "would need, three times as much",
    )
    preview_every: Whole = Field(default=0, ge=0, description="steps between preview pictures; 0: none")
    preview_prompt: str | None = Field(default=None, description="what a preview shows; the photos' template if none")
    seed: Seed = Field(default=0, description="random seed for noise, order and crops; -1: a random one, recorded")
    device: str = Field(default="auto", pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$", description="auto, cpu, cuda, cuda:1")


class PriorSettings(Section):
    enabled: bool = Field(default=True, description="prior preservation: keep what the base knows of the class")
    source: Literal["images", "teacher"] = Field(
        default="images",
        description="target of the class term: the noise of class images, or what the frozen base predicts for them",
    )
    teacher_draws: Positive = Field(
        default=16, le=10_000, description="stored predictions a class image, for a teacher of full fine-tuning"
    )
    weight: float = Field(default=1.0, ge=0, description="lambda in the paper's equation (1)")
    images: Positive = Field(default=100, le=1_000_000, description="class images in the set")
    template: str = Field(default="a photo of a {class}", description="the prompt of the class images")
    steps: Positive = Field(default=50, le=1000, description="sampler steps for a class image")
    guidance: float = Field(default=7.5, ge=0, le=100, description="guidance scale for a class image")
    sampler: Sampler = Field(default="ddim", description="sampler for a class image")
    batch_size: Positive = Field(default=4, le=4096, description="class images drawn at once")
    seed: Seed = Field(
        default=0,
        description="random seed of the class images; apart from train.seed, so that runs share them; "
        "-1: a random one, recorded",
    )
    precision: DrawPrecision = Field(
        default="auto", description="of the UNet while class images are drawn; auto as with draw.precision"
    )
    timesteps: Timesteps = Field(
        default="noisiest", description="which timesteps a class image is sampled on; as with draw.timesteps"
    )
    folder: str | None = Field(default=None, min_length=1, description="a folder of one's own class photos")

    @field_validator("template")
    @classmethod
    def _only_class(cls, template: str) -> str:
        return check_template(template, {"class"})


class LoraSettings(Section):
    rank: Positive = Field(default=4, le=4096, description="rank of the update")
    alpha: float = Field(default=4.0, gt=0, description="the update is scaled by alpha / rank")
    targets: Targets = Field(
        default=["to_q", "to_k", "to_v", "to_out.0"],
        description="layers of the UNet that get an adapter, by the ends of their names; all-linear: every linear one",
    )
    text_targets: Targets = Field(
        default=["q_proj", "k_proj", "v_proj", "out_proj"], description="layers of the text encoder, likewise"
    )
    dropout: float = Field(default=0.0, ge=0, lt=1, description="dropout in the adapter")
    dora: bool = Field(default=False, description="weight-decomposed adapters (DoRA)")
    base: Literal["full", "bf16", "int8", "nf4"] = Field(
        default="full",
        description="how the frozen UNet's weights are kept while adapters learn: as they are, in bf16 "
        "(with precision=bf16), in 8 or in 4 bits",
    )
    offload: bool = Field(
        default=False,
        description="with base=int8 or nf4: keep the frozen weights in RAM and fetch each layer's "
        "when a GPU needs them; slow, and the smallest",
    )


class InversionSettings(Section):
    vectors: Positive = Field(default=1, le=75, description="vectors that stand for the identifier, tokens of a prompt")
    initializer: str | None = Field(
        default=None, min_length=1, description="the word whose vectors they start from; the class noun if left out"
    )


class ImageSettings(Section):
    resolution: Whole | None = Field(
        default=None, ge=32, le=4096, multiple_of=8, description="pixels a side; the base's own if left out"
    )
    crop: Literal["center", "random"] = Field(default="center", description="which square of a photo is used")
    flip: bool = Field(default=False, description="mirror half of the photos; not for things with writing on them")
    template: str = Field(
        default="a photo of a {identifier} {class}", description="the prompt of a photo that has no caption"
    )
    mask_loss: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description="what the background counts in the loss of a photo that has a mask; 1: masks are not used",
    )

    @field_validator("template")
    @classmethod
    def _identifier_and_class(cls, template: str) -> str:
        return check_template(template, {"identifier", "class"})


class DrawSettings(Section):
    sampler: Sampler = Field(default="ddim", description="sampler for pictures")
    eta: float = Field(default=0.0, ge=0, le=1, description="DDIM's fresh noise a step; 0 is deterministic")
    steps: Positive = Field(default=100, le=1000, description="sampler steps")
    guidance: float = Field(default=10.0, ge=0, le=100, description="guidance scale")
    count: Positive = Field(default=8, le=1_000_000, description="images per prompt")
    batch_size: Positive = Field(default=4, le=4096, description="pictures drawn at once")
    negative: str = Field(default="", description="what should not be in the picture")
    precision: DrawPrecision = Field(
        default="auto", description="of the UNet while drawing; auto: bf16 on a CUDA GPU that has it, fp32 elsewhere"
    )
    timesteps: Timesteps = Field(
        default="noisiest",
        description="noisiest: begin at the noisiest timestep for every number of steps; published: the timesteps of "
        "the base's scheduler file, which begin a little later",
    )
    clip_skip: Positive = Field(
        default=1,
        le=64,
        description="which layer of the text encoder conditions pictures, counted from the last: 1 is the last, "
        "2 the last but one, as AUTOMATIC1111 counts",
    )
    compile: bool = Field(
        default=False, description="compile the UNet before the first picture: worth it for many pictures on a GPU"
    )


class ProbeSettings(Section):
    judge: Literal["auto", "off", "tiny", "paper"] = Field(
        default="auto",
        description="who scores checkpoints in training; auto: the embedded judges for the embedded base, the paper's "
        "where they are on this machine",
    )
    every: Positive | None = Field(
        default=None, description="steps between probes; if left out, as many as fit into the budget"
    )
    budget: float = Field(
        default=0.15, gt=0, le=1, description="the most that probing may take, as a share of the time of all steps"
    )
    prompts: Annotated[list[str], BeforeValidator(_as_one)] = Field(
        default=[
            "a {identifier} {class} in the snow",
            "a {identifier} {class} on the beach",
            "a {identifier} {class} in space",
        ],
        min_length=1,
        max_length=64,
        description="scenes that show whether prompts are still followed",
    )
    seeds: Positive = Field(default=2, le=64, description="pictures of each prompt; fewer where the budget is small")
    steps: Positive = Field(default=10, le=1000, description="sampler steps of a probe's picture")
    sampler: Sampler = Field(default="dpm++", description="sampler of a probe's picture; this one needs few steps")
    keep: Literal["best", "last"] = Field(default="best", description="which checkpoint becomes the run's result")
    stop: Literal["never", "auto"] = Field(
        default="never", description="auto: training ends when neither score has risen for a while"
    )
    patience: Positive = Field(default=3, le=1000, description="probes without a rise after which auto ends a run")
    margin: float = Field(default=0.005, ge=0, le=1, description="a smaller rise of a score is none")

    @field_validator("prompts")
    @classmethod
    def _about_the_subject(cls, prompts: list[str]) -> list[str]:
        for prompt in prompts:
            check_template(prompt, {"identifier", "class"})
            if "{identifier}" not in prompt:
                raise ValueError("should say {identifier} in every prompt")
        return prompts


class Profile(Section):
    """All settings of one run, resolved; it is frozen into the run's record."""

    method: Literal["full", "lora", "textual-inversion"] = Field(
        default="full", description="all weights, small adapters beside them, or only new word vectors"
    )
    train: TrainSettings = Field(default_factory=TrainSettings)
    prior: PriorSettings = Field(default_factory=PriorSettings)
    lora: LoraSettings = Field(default_factory=LoraSettings)
    inversion: InversionSettings = Field(default_factory=InversionSettings)
    images: ImageSettings = Field(default_factory=ImageSettings)
    draw: DrawSettings = Field(default_factory=DrawSettings)
    probe: ProbeSettings = Field(default_factory=ProbeSettings)
