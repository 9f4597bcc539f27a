"""The settings of a profile: every one with its default, its range and its reason."""

from functools import partial
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

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
Precision = Literal["auto", "fp32", "bf16", "fp16"]
Timesteps = Literal["noisiest", "published"]
Positive = Annotated[Whole, Field(ge=1)]


def _as_factor(value: int) -> int:
    if value != -1 and not 1 <= value <= 4096:
        raise ValueError("should be a whole number from 1 to 4096, or -1 for two parts as equal as possible")
    return value


Factor = Annotated[Whole, AfterValidator(_as_factor)]


def _checked_held_out(value: object) -> object:
    """One rule for both forms, as a union would tell a fault once for each."""
    numbers: list[Any] = value if isinstance(value, list) else [value]
    least = 1 if isinstance(value, list) else 0
    whole = [int(one) for one in numbers if type(one) in (int, float) and one >= least and float(one).is_integer()]
    if not whole or len(whole) < len(numbers):
        raise ValueError("should be how many photos, from 0, or a list of their numbers, from 1, such as [2,5]")
    return whole if isinstance(value, list) else whole[0]


HeldOut = Annotated[int | list[int], BeforeValidator(_checked_held_out)]


def _as_list(value: object) -> object:
    """`to_q,to_k` for `[to_q, to_k]`: no name of a layer holds a comma."""
    return [part.strip() for part in value.split(",")] if isinstance(value, str) else value


def _as_one(value: object) -> object:
    """A prompt alone for a list of one."""
    return [value] if isinstance(value, str) else value


ClassTemplate = Annotated[str, AfterValidator(partial(check_template, fields=("class",)))]
SubjectTemplate = Annotated[str, AfterValidator(partial(check_template, fields=("identifier", "class")))]
Targets = Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1), BeforeValidator(_as_list)]


class Section(BaseModel):
    """One group of settings."""

    # Strict: a number in quotes or `true` for a number is a slip that should be shown, not mended.
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class TrainSettings(Section):
    steps: Positive = Field(default=800, le=10_000_000, description="optimiser steps")
    batch_size: Positive = Field(default=1, le=4096, description="subject photos per forward pass")
    accumulation: Positive = Field(default=1, le=4096, description="forward passes per optimiser step")
    learning_rate: float = Field(default=1e-6, ge=0, le=10, description="learning rate of the UNet or its adapter")
    text_encoder: bool = Field(default=True, description="train the text encoder too")
    text_encoder_learning_rate: float | None = Field(
        default=None, ge=0, le=10, description="the text encoder's learning rate; the same as learning_rate if left out"
    )
    text_encoder_2_learning_rate: float | None = Field(
        default=None,
        ge=0,
        le=10,
        description="that of the second text encoder, on a base with two; the same as the first one's if left out",
    )
    optimizer: Literal["adamw", "adamw16bit", "adamw8bit", "adafactor", "prodigy", "schedulefree", "muon"] = Field(
        default="adamw",
        description="the optimiser; adamw16bit: AdamW with moments in bfloat16, stochastically rounded; prodigy: "
        "AdamW that finds its rate by itself, with learning_rate=1; schedulefree: AdamW that averages its weights, "
        "without a schedule; muon: for matrices, and AdamW for the rest",
    )
    beta1: float = Field(default=0.9, ge=0, lt=1, description="AdamW's first moment decay; Muon's is 0.95")
    beta2: float = Field(default=0.999, ge=0, lt=1, description="AdamW's second moment decay")
    weight_decay: float = Field(default=1e-2, ge=0, le=1, description="weight decay, as AdamW's")
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
        description="update each weight inside the backward pass, so that gradients are never all in memory at once; "
        "needs gradient_clip=0 and accumulation=1",
    )
    stochastic_rounding: bool = Field(
        default=False, description="weights in bf16, rounded stochastically; method full with precision=bf16"
    )
    precision: Precision = Field(
        default="fp32", description="precision of the forward pass; auto: as for draw.precision, recorded"
    )
    compile: bool = Field(
        default=False, description="compile the UNet first: takes minutes, pays off in long runs on a GPU"
    )
    ema: float | None = Field(default=None, gt=0, lt=1, description="decay of the moving average of the weights")
    min_snr_gamma: float | None = Field(default=None, gt=0, description="min-SNR weights (Hang et al.), 5 is usual")
    debiased_estimation: bool = Field(
        default=False, description="weights that debias the estimate of the image (Yu et al.); instead of min_snr_gamma"
    )
    loss: Literal["squared", "pseudo-huber"] = Field(
        default="squared",
        description="how errors count; pseudo-huber: squares up to a width and lines beyond it, so that what is odd in "
        "a photo weighs less (Khrapov et al.)",
    )
    huber_schedule: Literal["constant", "exponential", "snr"] = Field(
        default="snr",
        description="with loss=pseudo-huber: how the width falls from 1, near the image, to huber_c, near noise; "
        "constant: huber_c everywhere",
    )
    huber_c: float = Field(default=0.1, gt=0, le=1, description="with loss=pseudo-huber: the least width")
    offset_noise: float = Field(
        default=0.0, ge=0, le=1, description="noise shared by all pixels of a channel; not for flow-matching bases"
    )
    multires_noise: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="multi-resolution noise (Whitaker): how much weaker noise of half the size is, 0.3 is usual; "
        "0: of one size only; not for flow-matching bases",
    )
    on_divergence: Literal["stop", "lower-rate"] = Field(
        default="stop",
        description="after a loss or weight that is not finite: stop, or go back one checkpoint and halve the rate",
    )
    rehearsal_share: float = Field(
        default=0.25, ge=0, le=0.9, description="with --from: what share of the photo rows shows earlier subjects"
    )
    checkpoint_every: Whole = Field(default=200, ge=0, description="steps between checkpoints; 0: only at the end")
    keep_checkpoints: Positive = Field(default=2, description="how many checkpoints to keep; older ones are removed")
    keep_finished: Literal["weights", "all"] = Field(
        default="weights",
        description="what a finished run keeps of its checkpoints: weights to generate with, or everything resuming "
        "needs, three times as much",
    )
    preview_every: Whole = Field(default=0, ge=0, description="steps between preview images; 0: none")
    preview_prompt: str | None = Field(
        default=None, description="what a preview shows; the first of images.templates if none"
    )
    seed: Seed = Field(default=0, description="random seed for noise, order and crops; -1: a random one, recorded")
    device: str = Field(default="auto", pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$", description="auto, cpu, cuda, cuda:1")


class PriorSettings(Section):
    enabled: bool = Field(default=True, description="prior preservation: keep what the base knows about the class")
    source: Literal["images", "teacher"] = Field(
        default="images",
        description="target of the class term: the noise of class images, or what the frozen base predicts for them",
    )
    teacher_draws: Positive = Field(
        default=16, le=10_000, description="stored predictions per class image, for a teacher in full fine-tuning"
    )
    empty_share: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="with source=teacher: in which share of class rows the empty prompt is taught instead of the "
        "class's; guidance leads away from what the base draws there, so it should stay as it was",
    )
    weight: float = Field(default=1.0, ge=0, description="lambda in the paper's equation (1)")
    images: Positive = Field(
        default=100, le=1_000_000, description="class images in all, shared among the sentences they are drawn under"
    )
    template: ClassTemplate | None = Field(
        default=None,
        description="one prompt for all class images; if left out, the sentences of images.templates without "
        "{identifier}, each beside the photos taught with it",
    )
    steps: Positive = Field(default=50, le=1000, description="sampler steps for a class image")
    guidance: float = Field(default=7.5, ge=0, le=100, description="guidance scale for a class image")
    sampler: Sampler = Field(default="ddim", description="sampler for a class image")
    batch_size: Positive = Field(default=4, le=4096, description="class images generated at once")
    seed: Seed = Field(
        default=0,
        description="random seed of the class images; separate from train.seed, so that runs share them; "
        "-1: a random one, recorded",
    )
    precision: Precision = Field(
        default="auto", description="precision of the UNet for class images; auto: as for draw.precision"
    )
    timesteps: Timesteps = Field(
        default="noisiest", description="which timesteps a class image is sampled on; as for draw.timesteps"
    )
    folder: str | None = Field(default=None, min_length=1, description="a folder with your own class photos")


class LoraSettings(Section):
    rank: Positive = Field(default=4, le=4096, description="rank of the update")
    alpha: float = Field(default=4.0, gt=0, description="the update is scaled by alpha / rank")
    targets: Targets = Field(
        default=["to_q", "to_k", "to_v", "to_out.0"],
        description="layers of the UNet that get an adapter, by how their names end; all-linear: every linear layer",
    )
    text_targets: Targets = Field(
        default=["q_proj", "k_proj", "v_proj", "out_proj"], description="text encoder layers that get an adapter"
    )
    dropout: float = Field(default=0.0, ge=0, lt=1, description="dropout in the adapter")
    dora: bool = Field(default=False, description="weight-decomposed adapters (DoRA)")
    rslora: bool = Field(
        default=False,
        description="rank-stabilised (rsLoRA): the update is scaled by alpha / √rank, which keeps its size at high "
        "ranks; files say the alpha that gives the same by alpha / rank",
    )
    b_rate_ratio: float = Field(
        default=1.0,
        ge=1,
        le=1000,
        description="LoRA+: what the learning rate is multiplied by for the B matrices, which begin at zero",
    )
    init: Literal["zero", "pissa", "orthogonal"] = Field(
        default="zero",
        description="what a LoRA begins with: B at zero; pissa: the principal part of each weight; orthogonal: the "
        "smallest singular vectors of a random matrix; the last two are taken off again, so that nothing changes yet, "
        "and their files have twice the rank",
    )
    least_rank: Whole = Field(
        default=0,
        ge=0,
        le=4096,
        description="T-LoRA: how many ranks are in force at the noisiest timestep, rising to all of them near the "
        "image; 0: all at every timestep. It is not exported; not for flow-matching bases",
    )
    kind: Literal["lora", "lokr", "loha"] = Field(
        default="lora",
        description="what the adapter adds: a product of two low-rank matrices, or LyCORIS' LoKr, a Kronecker product, "
        "or its LoHa, an elementwise product of two low-rank matrices",
    )
    factor: Factor = Field(
        default=-1,
        description="with kind=lokr: what a layer's inputs and outputs are divided by for the smaller of its two "
        "matrices; -1: into two parts as equal as possible, which gives the smallest file",
    )
    decompose_both: bool = Field(
        default=False, description="with kind=lokr: the smaller matrix gets the rank, too, and is not whole"
    )
    tucker: bool = Field(
        default=False,
        description="with kind=lokr or loha: convolutions get a core between their factors, and fewer weights",
    )
    base: Literal["full", "bf16", "int8", "nf4"] = Field(
        default="full",
        description="how the frozen UNet's weights are stored while adapters are trained: as they are, in bf16 "
        "(with precision=bf16), in 8 or in 4 bits",
    )
    offload: bool = Field(
        default=False,
        description="with base=int8 or nf4: keep the frozen weights in RAM and fetch each layer's "
        "when a GPU needs them; slow, but smallest",
    )


class InversionSettings(Section):
    vectors: Positive = Field(default=1, le=75, description="vectors of the identifier, one prompt token each")
    initializer: str | None = Field(
        default=None, min_length=1, description="the word whose vectors they start from; the class noun if left out"
    )


class ImageSettings(Section):
    resolution: Whole | None = Field(
        default=None, ge=32, le=4096, multiple_of=8, description="pixels per side; the base's own if left out"
    )
    buckets: Literal["off", "auto"] = Field(
        default="off",
        description="off: photos are cut to squares; auto: each is trained at one of a few sizes of about that area, "
        "chosen from the photos' shapes so that at most 12 % of any is cut away; class images get the same sizes",
    )
    crop: Literal["center", "random", "subject"] = Field(
        default="center",
        description="which part of a photo is used; subject: the one around its mask, the centre where it has none",
    )
    flip: bool = Field(default=False, description="mirror half of the photos; not for things with writing on them")
    templates: Annotated[list[SubjectTemplate], BeforeValidator(_as_one)] = Field(
        default=["a photo of a {identifier} {class}", "a {identifier} {class}"],
        min_length=1,
        max_length=64,
        description="the sentences that photos are taught with, in turn; a caption goes on from each of them",
    )
    caption_share: float = Field(
        default=0.75,
        ge=0,
        le=1,
        description="in which share of its rows a photo is taught with its caption, in the others with the sentence "
        "alone; 0: captions are neither used nor, for new photos, written",
    )
    caption_shuffle: Literal["off", "words", "tags"] = Field(
        default="off",
        description="teach a caption in one of four orders of its words, or of what commas separate in it; sentence, "
        "identifier and class noun stay together",
    )
    empty_share: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="in which share of its rows a photo is taught with the empty prompt (caption dropout), from which "
        "guidance leads away; what is learnt there has no word",
    )
    held_out: HeldOut = Field(
        default=0,
        description="photos of each subject that are not taught: the last so many, or those with the numbers of a "
        "list; the loss on them, at fixed noise and timesteps, is measured on the way",
    )
    mask_loss: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description="weight of the background in the loss of a photo with a mask; 1: masks are not used",
    )
    cutouts: Whole = Field(
        default=0,
        ge=0,
        le=11,
        description="on how many plain colours a photo with a mask is shown, too, its subject cut out; each counts as "
        "one more photo",
    )
    scene_cutouts: Whole = Field(
        default=0,
        ge=0,
        le=64,
        description="in how many of images.scenes a photo with a mask is shown, too, its subject cut out in front of "
        "what the base draws there; each counts as one more photo",
    )
    scenes: Annotated[list[Annotated[str, Field(min_length=1)]], BeforeValidator(_as_one)] = Field(
        default=[
            "in the snow",
            "on the beach",
            "in the jungle",
            "on a cobblestone street",
            "with a city in the background",
            "on a wooden floor",
        ],
        min_length=1,
        max_length=64,
        description="the scenes of images.scene_cutouts, in turn, as prompts say them; the base draws them as it draws "
        "class images (prior.sampler, prior.steps, prior.guidance)",
    )

    @model_validator(mode="before")
    @classmethod
    def _one_template(cls, values: Any) -> Any:
        """`template: …`, as settings said it when there was one sentence, is a list of one."""
        if not isinstance(values, dict) or "template" not in values:
            return values
        rest = {key: value for key, value in values.items() if key != "template"}
        return {"templates": values["template"], **rest}


class DrawSettings(Section):
    sampler: Sampler = Field(default="ddim", description="sampler for images")
    eta: float = Field(default=0.0, ge=0, le=1, description="DDIM's fresh noise per step; 0 is deterministic")
    steps: Positive = Field(default=100, le=1000, description="sampler steps")
    guidance: float = Field(default=10.0, ge=0, le=100, description="guidance scale")
    count: Positive = Field(default=8, le=1_000_000, description="images per prompt")
    batch_size: Positive = Field(default=4, le=4096, description="images generated at once")
    negative: str = Field(default="", description="negative prompt")
    precision: Precision = Field(
        default="auto",
        description="the UNet's precision for images; auto: bf16 where the GPU, or the CPU (AVX512-BF16, AMX), "
        "computes in it, else fp32",
    )
    timesteps: Timesteps = Field(
        default="noisiest",
        description="noisiest: start at the noisiest timestep for every number of steps; published: the timesteps of "
        "the base's scheduler file, which start a little later",
    )
    clip_skip: Positive = Field(
        default=1,
        le=64,
        description="which layer of the text encoder conditions images, counted from the last: 1 is the last, "
        "2 the last but one, as AUTOMATIC1111 counts",
    )
    compile: bool = Field(
        default=False, description="compile the UNet before the first image: pays off for many images on a GPU"
    )


class ProbeSettings(Section):
    judge: Literal["auto", "off", "tiny", "paper"] = Field(
        default="auto",
        description="who scores checkpoints during training; auto: the embedded judges for the embedded base, else the "
        "paper's, if they are on this machine",
    )
    every: Positive | None = Field(
        default=None, description="steps between probes; if left out, as many as fit into the budget"
    )
    budget: float = Field(
        default=0.15, gt=0, le=1, description="upper limit on probing time, as a share of the time of all steps"
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
    seeds: Positive = Field(default=2, le=64, description="images per prompt; fewer if the budget is small")
    steps: Positive = Field(default=10, le=1000, description="sampler steps for a probe's image")
    sampler: Sampler = Field(default="dpm++", description="sampler for a probe's image; this one needs few steps")
    keep: Literal["best", "last"] = Field(default="best", description="which checkpoint becomes the run's result")
    stop: Literal["never", "auto"] = Field(
        default="never", description="auto: training ends when neither score has risen for a while"
    )
    patience: Positive = Field(default=3, le=1000, description="with stop=auto: probes without a rise that end a run")
    margin: float = Field(default=0.005, ge=0, le=1, description="a smaller rise of a score counts as none")

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
