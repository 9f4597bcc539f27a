"""Profiles: every setting of training and drawing with its default, its range and its reason.

A profile is resolved from layers (shipped profile, user file, project file, `--set`, flags); the later wins.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from dbcli.errors import ConfigError, DataError, UsageError
from dbcli.project.contradictions import contradictions
from dbcli.project.identifiers import check_template
from dbcli.project.names import printable
from dbcli.project.records import Whole, fault_text
from dbcli.project.yaml_files import parse_value, read_yaml

Sampler = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9+_-]{0,31}$")]
Positive = Annotated[Whole, Field(ge=1)]
Targets = Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)]


class _Section(BaseModel):
    # Strict: a number in quotes or `true` for a number is a slip that should be shown, not mended.
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class TrainSettings(_Section):
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
    preview_every: Whole = Field(default=0, ge=0, description="steps between preview pictures; 0: none")
    preview_prompt: str | None = Field(default=None, description="what a preview shows; the photos' template if none")
    seed: Whole = Field(default=0, ge=0, lt=2**63, description="of all noise, orders and crops")
    device: str = Field(default="auto", pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$", description="auto, cpu, cuda, cuda:1")


class PriorSettings(_Section):
    enabled: bool = Field(default=True, description="prior preservation: keep what the base knows of the class")
    source: Literal["images", "teacher"] = Field(
        default="images",
        description="target of the class term: the noise of class images, or what the frozen base predicts for them",
    )
    teacher_draws: Positive = Field(
        default=16, le=10_000, description="stored predictions a class image, for a teacher of full fine-tuning"
    )
    weight: float = Field(default=1.0, ge=0, description="lambda in the paper's equation (1)")
    images: Positive = Field(default=100, le=1_000_000, description="class images in the prior set")
    template: str = Field(default="a photo of a {class}", description="the prompt of the class images")
    steps: Positive = Field(default=50, le=1000, description="sampler steps for a class image")
    guidance: float = Field(default=7.5, ge=0, le=100, description="guidance scale for a class image")
    sampler: Sampler = Field(default="ddim", description="sampler for a class image")
    batch_size: Positive = Field(default=4, le=4096, description="class images drawn at once")
    seed: Whole = Field(
        default=0,
        ge=0,
        lt=2**63,
        description="of the class images; apart from train.seed, so that runs share them",
    )
    folder: str | None = Field(default=None, min_length=1, description="a folder of one's own class photos")

    @field_validator("template")
    @classmethod
    def _only_class(cls, template: str) -> str:
        return check_template(template, {"class"})


class LoraSettings(_Section):
    rank: Positive = Field(default=4, le=4096, description="rank of the update")
    alpha: float = Field(default=4.0, gt=0, description="the update is scaled by alpha / rank")
    targets: Targets = Field(
        default=["to_q", "to_k", "to_v", "to_out.0"], description="modules of the UNet that get an adapter"
    )
    text_targets: Targets = Field(
        default=["q_proj", "k_proj", "v_proj", "out_proj"], description="modules of the text encoder"
    )
    dropout: float = Field(default=0.0, ge=0, lt=1, description="dropout in the adapter")
    dora: bool = Field(default=False, description="weight-decomposed adapters (DoRA)")
    base: Literal["full", "bf16", "int8", "nf4"] = Field(
        default="full",
        description="how the frozen UNet's weights are kept while adapters learn: as they are, in bf16 "
        "(with precision=bf16), in 8 or in 4 bits",
    )


class InversionSettings(_Section):
    vectors: Positive = Field(default=1, le=75, description="vectors that stand for the identifier, tokens of a prompt")
    initializer: str | None = Field(
        default=None, min_length=1, description="the word whose vectors they start from; the class noun if left out"
    )


class ImageSettings(_Section):
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


class DrawSettings(_Section):
    sampler: Sampler = Field(default="ddim", description="sampler for pictures")
    eta: float = Field(default=0.0, ge=0, le=1, description="DDIM's fresh noise a step; 0 is deterministic")
    steps: Positive = Field(default=100, le=1000, description="sampler steps")
    guidance: float = Field(default=10.0, ge=0, le=100, description="guidance scale")
    count: Positive = Field(default=8, le=1_000_000, description="pictures a prompt")
    batch_size: Positive = Field(default=4, le=4096, description="pictures drawn at once")
    negative: str = Field(default="", description="what should not be in the picture")


class ProbeSettings(_Section):
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
    prompts: list[str] = Field(
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


class Profile(_Section):
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


def shipped_profiles() -> list[str]:
    """Return the names of the profiles that come with the program, sorted."""
    return sorted(path.stem for path in _shipped_folder().glob("*.yaml"))


def load_profile(name_or_path: str | Path) -> dict[str, Any]:
    """Return a profile's own settings, unresolved: a shipped name, or the path of a YAML file.

    Raises UsageError for a name that is not shipped, ConfigError for a faulty file.
    """
    text = str(name_or_path)
    names = shipped_profiles()
    if text in names:
        return read_yaml(_shipped_folder() / f"{text}.yaml")
    path = Path(text).expanduser()
    if path.suffix in (".yaml", ".yml") or path.is_file():
        if not path.is_file():
            raise UsageError(f"The profile {printable(text)} is not there.", hint=f"shipped: {', '.join(names)}")
        return read_yaml(path)
    near = difflib.get_close_matches(text, names, n=1)
    raise UsageError(
        f"There is no profile '{printable(text)}'." + (f" Did you mean '{near[0]}'?" if near else ""),
        hint=f"one of {', '.join(names)}, or a .yaml file",
    )


def resolve(layers: Sequence[tuple[str, Mapping[str, Any]]]) -> Profile:
    """Return the profile that the layers make together, defaults first, the last layer winning.

    A layer is a name for messages ("--set", "profile 'lora'") and a mapping, nested or with dotted keys.
    Raises one ConfigError with every fault of every layer: the layer, the dotted key, the value found.
    """
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    problems: list[str] = []
    known = known_keys()
    for origin, layer in layers:
        for key, value in _flat(layer, known):
            if key in known:
                values[key], origins[key] = value, origin
            else:
                problems.append(_unknown(origin, key, known))
    try:
        profile = Profile.model_validate(_nested(values))
    except ValidationError as error:
        problems += [_fault_of(fault, origins) for fault in error.errors(include_url=False)]
    else:
        problems += contradictions(profile)
    if problems:
        many = f"{len(problems)} faults" if len(problems) > 1 else "a fault"
        raise ConfigError(f"The settings have {many}:\n" + "\n".join(f"  {line}" for line in problems))
    return profile


def frozen_profile(values: Mapping[str, Any], where: str) -> Profile:
    """Return the settings a run was frozen with; `where` names its record in the DataError for faulty ones."""
    try:
        return Profile.model_validate({key: value for key, value in values.items() if key != "name"})
    except ValidationError as error:
        lines = "\n".join(f"  {_fault_of(fault, {})}" for fault in error.errors(include_url=False))
        raise DataError(f"The settings in {where} have faults:\n{lines}") from error


def parse_set(text: str) -> tuple[str, Any]:
    """Return the dotted key and the value of a `--set key=value`; the value is read as YAML.

    Raises UsageError without a `=`, ConfigError for a key that does not exist or a value that is not YAML.
    """
    key, separator, value = text.partition("=")
    key = key.strip()
    if not separator or not key:
        raise UsageError(
            f"--set takes key=value, not '{printable(text)}'.",
            hint="for example --set train.learning_rate=5e-6",
        )
    known = known_keys()
    if key not in known:
        raise ConfigError(_unknown("--set", key, known) + ".")
    return key, parse_value(value, f"--set {key}")


def known_keys() -> dict[str, str]:
    """Return every dotted key of a profile, in order, with its one-line description."""
    keys: dict[str, str] = {}
    for name, field in Profile.model_fields.items():
        section = field.annotation
        if isinstance(section, type) and issubclass(section, _Section):
            for inner, inner_field in section.model_fields.items():
                keys[f"{name}.{inner}"] = inner_field.description or ""
        else:
            keys[name] = field.description or ""
    return keys


def flattened(layer: Mapping[str, Any]) -> dict[str, Any]:
    """Return a layer's settings by dotted key, whether it was nested or dotted; unknown keys stay as they are."""
    return dict(_flat(layer, known_keys()))


def _shipped_folder() -> Path:
    here = Path(__file__).resolve().parent
    packaged = here / "shipped_profiles"
    return packaged if packaged.is_dir() else here.parent.parent / "profiles"


def _flat(layer: Mapping[str, Any], known: Mapping[str, str], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in layer.items():
        key = f"{prefix}{name}"
        is_section = any(other.startswith(key + ".") for other in known)
        if is_section and isinstance(value, Mapping):
            yield from _flat(value, known, key + ".")
        elif not (is_section and value is None):  # `train:` with nothing under it sets nothing
            yield key, value


def _nested(values: Mapping[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for key, value in values.items():
        section, _, name = key.rpartition(".")
        (tree.setdefault(section, {}) if section else tree)[name] = value
    return tree


def _unknown(origin: str, key: str, known: Mapping[str, str]) -> str:
    leaves = {other.rpartition(".")[2]: other for other in known}
    if any(other.startswith(key + ".") for other in known):
        return f"{key} (from {origin}): is a section; set its keys, such as {_first_of(key, known)}"
    near = difflib.get_close_matches(key, list(known), n=1, cutoff=0.7)
    if not near:
        near = [leaves[leaf] for leaf in difflib.get_close_matches(key.rpartition(".")[2], list(leaves), n=1)]
    text = f"{printable(key)} (from {origin}): is not a setting"
    return text + (f"; did you mean {near[0]}?" if near else "")


def _first_of(section: str, known: Mapping[str, str]) -> str:
    return next(key for key in known if key.startswith(section + "."))


def _fault_of(fault: Any, origins: Mapping[str, str]) -> str:
    parts = [str(part) for part in fault["loc"]]
    key = ".".join(parts[:2]) if ".".join(parts[:2]) in origins else ".".join(parts[:1])
    place = f" (from {origins[key]})" if key in origins else ""
    return f"{'.'.join(parts)}{place}: {fault_text(fault['type'], fault['msg'], fault.get('input'))}"
