"""Settings that cannot hold together, and allowed ones that a person hardly means."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from dbcli.counts import counted

if TYPE_CHECKING:
    from dbcli.project.settings.profile_settings import (
        ImageSettings,
        InversionSettings,
        LoraSettings,
        PriorSettings,
        Profile,
        TrainSettings,
    )


# Prodigy's learning rate is a factor on the one it finds: a smaller one was meant for another optimiser, and a larger
# one with another optimiser for Prodigy.
LEAST_FACTOR = 0.1
# Optimisers whose rates mean something else than AdamW's: a factor on the rate it finds, and several times as much.
RATE_SCALES = {"prodigy": "of the rate it finds", "schedulefree": "of steps that are averaged"}


def contradictions(profile: Profile) -> list[str]:
    """One line for every setting that another one rules out: its key, what it should be, why, the value found."""
    return [
        *_of_fused_backward(profile),
        *_of_rounding(profile),
        *_of_prodigy(profile.train),
        *_of_b_rate(profile),
        *_of_schedule_free(profile.train),
        *_of_muon(profile),
        *_of_weights(profile.train),
        *_of_sentences(profile.images),
        *_of_empty_prompt(profile),
        *_of_small_base(profile),
        *_of_kind(profile),
        *_of_init(profile.lora),
        *_of_least_rank(profile),
    ]


def _of_fused_backward(profile: Profile) -> list[str]:
    train = profile.train
    if not train.fused_backward:
        return []
    reason = "with train.fused_backward, which"
    return _wrong(
        ("train.gradient_clip", train.gradient_clip, 0, f"{reason} never has all gradients at once for a norm"),
        ("train.accumulation", train.accumulation, 1, f"{reason} keeps no gradient for a second pass"),
    ) + _not_fp16(train.precision, f"{reason} updates before a scaled gradient can be checked")


def _of_rounding(profile: Profile) -> list[str]:
    train = profile.train
    if not train.stochastic_rounding:
        return []
    reason = "with train.stochastic_rounding, which"
    return _wrong(
        ("method", profile.method, "full", f"{reason} is for weights in bf16; other methods train few weights"),
        ("train.precision", train.precision, "bf16", f"{reason} stores the weights in bf16"),
        ("train.ema", train.ema, None, f"{reason} has too few bits for an average's small steps"),
    )


def _of_prodigy(train: TrainSettings) -> list[str]:
    if train.optimizer != "prodigy":
        return []
    reason = "with train.optimizer=prodigy, which"
    rates = []
    if train.learning_rate < LEAST_FACTOR:
        rates = _wrong(("train.learning_rate", train.learning_rate, 1, f"{reason} finds the rate by itself"))
    for name in ("text_encoder_learning_rate", "text_encoder_2_learning_rate"):
        if getattr(train, name) not in (None, train.learning_rate):
            rates += _wrong((f"train.{name}", getattr(train, name), None, f"{reason} finds one rate for all weights"))
    return rates + _all_at_once(train, f"{reason} finds the rate from all weights at once")


def _of_b_rate(profile: Profile) -> list[str]:
    ratio = profile.lora.b_rate_ratio
    found = []
    if profile.method != "lora":
        found += _wrong(("lora.b_rate_ratio", ratio, 1.0, f"with method={profile.method}, which has no B matrices"))
    elif profile.lora.kind != "lora":
        reason = f"with lora.kind={profile.lora.kind}: only a LoRA has B matrices"
        found += _wrong(("lora.b_rate_ratio", ratio, 1.0, reason))
    if profile.train.optimizer == "prodigy":
        reason = "with train.optimizer=prodigy, which finds one rate for all weights"
        found += _wrong(("lora.b_rate_ratio", ratio, 1.0, reason))
    return found


def _of_schedule_free(train: TrainSettings) -> list[str]:
    if train.optimizer != "schedulefree":
        return []
    reason = "with train.optimizer=schedulefree, which"
    found = _wrong(
        ("train.schedule", train.schedule, "constant", f"{reason} averages the weights instead of lowering the rate"),
        ("train.ema", train.ema, None, f"{reason} averages the weights by itself"),
    )
    if train.beta1 == 0:
        found.append(f"train.beta1: should be above 0 {reason} takes gradients that far from its average (found 0)")
    return found + _all_at_once(train, f"{reason} averages all weights at once")


def _of_muon(profile: Profile) -> list[str]:
    if profile.train.optimizer != "muon" or profile.method != "textual-inversion":
        return []
    reason = "with method=textual-inversion: muon is for matrices that layers multiply by, not for words' vectors"
    return _wrong(("train.optimizer", "muon", "adamw", reason))


def _of_weights(train: TrainSettings) -> list[str]:
    if not train.debiased_estimation:
        return []
    reason = "with train.debiased_estimation, which weighs errors by another rule"
    return _wrong(("train.min_snr_gamma", train.min_snr_gamma, None, reason))


def _of_sentences(images: ImageSettings) -> list[str]:
    reason = "in every sentence: without it photos teach the whole class"
    return [
        f"images.templates: should say {{identifier}} {reason} (found '{one}')"
        for one in images.templates
        if "{identifier}" not in one
    ]


def _of_empty_prompt(profile: Profile) -> list[str]:
    if profile.method != "textual-inversion":
        return []
    reason = "with method=textual-inversion: the empty prompt has no word to be learnt"
    return _wrong(("images.empty_share", profile.images.empty_share, 0.0, reason))


def _all_at_once(train: TrainSettings, reason: str) -> list[str]:
    return _wrong(
        ("train.fused_backward", train.fused_backward, False, reason),
        ("train.stochastic_rounding", train.stochastic_rounding, False, reason),
    )


def _of_small_base(profile: Profile) -> list[str]:
    kept = profile.lora.base
    reason = f"with lora.base={kept}: only packed weights are fetched layer by layer"
    offload = [] if kept in ("int8", "nf4") else _wrong(("lora.offload", profile.lora.offload, False, reason))
    if kept == "full":
        return offload
    found = _wrong(("method", profile.method, "lora", f"with lora.base={kept}: only adapters leave the base frozen"))
    if kept == "bf16" and profile.train.precision != "bf16":
        reason = "with lora.base=bf16, which computes in bf16"
        found += _wrong(("train.precision", profile.train.precision, "bf16", reason))
    return found + offload


def _of_kind(profile: Profile) -> list[str]:
    lora = profile.lora
    if lora.kind == "lora":
        return []
    reason = f"with lora.kind={lora.kind}: only a LoRA can be"
    return _wrong(
        ("lora.dora", lora.dora, False, f"{reason} a DoRA"),
        ("lora.rslora", lora.rslora, False, f"{reason} rank-stabilised"),
        ("lora.init", lora.init, "zero", f"{reason} begun so"),
        ("lora.least_rank", lora.least_rank, 0, f"{reason} a T-LoRA"),
    )


def _of_init(lora: LoraSettings) -> list[str]:
    if lora.init == "zero":
        return []
    found = _wrong(("lora.dora", lora.dora, False, f"with lora.init={lora.init}: a DoRA begins at zero"))
    if lora.init == "pissa" and lora.base in ("int8", "nf4"):
        reason = "with lora.init=pissa, which looks into the weights themselves"
        found += _wrong(("lora.base", lora.base, "full", reason))
    return found


def _of_least_rank(profile: Profile) -> list[str]:
    lora = profile.lora
    if lora.least_rank == 0:
        return []
    reason = "with lora.least_rank, whose ranks go by the timestep"
    found = _wrong(
        ("method", profile.method, "lora", reason),
        ("lora.dora", lora.dora, False, reason),
        ("train.compile", profile.train.compile, False, reason),
        ("draw.compile", profile.draw.compile, False, reason),
    )
    if lora.least_rank >= lora.rank:
        found.append(f"lora.least_rank: should be below lora.rank, {lora.rank} (found {lora.least_rank})")
    return found


def _not_fp16(precision: str, reason: str) -> list[str]:
    return [f"train.precision: should not be fp16 {reason}"] if precision == "fp16" else []


def _wrong(*rules: tuple[str, object, object, str]) -> list[str]:
    """Lines for those of (key, value found, value that fits, reason) whose values differ."""
    return [
        f"{key}: should be {_shown(wanted)} {reason} (found {_shown(found)})"
        for key, found, wanted, reason in rules
        if found != wanted
    ]


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "left out" if value is None else str(value)


def cautions(profile: Profile) -> list[str]:
    """Return a line for every setting that makes a run other than it seems: its key, its value, what comes of it."""
    return [
        *_of_rates(profile),
        *_of_text_rates(profile),
        *_of_large_b_rate(profile),
        *_of_warmup(profile.train),
        *_of_schedule(profile.train),
        *_of_optimiser(profile),
        *_of_loss(profile.train),
        *_of_prior(profile.prior),
        *_of_captions(profile.images),
        *_of_masks(profile.images),
        *_of_previews(profile),
        *_of_adapter(profile),
        *_of_words(profile),
    ]


def share_rates(one: str, other: str) -> bool:
    """Whether a learning rate for one optimiser suits the other."""
    return RATE_SCALES.get(one) == RATE_SCALES.get(other)


def kept_rate(before: TrainSettings, after: TrainSettings, origin: str) -> Iterator[str]:
    """A line where the optimiser is changed from or to one that takes other rates, and the rate is not.

    Rates that only Prodigy takes are told by themselves.
    """
    earlier, now, rate = before.optimizer, after.optimizer, after.learning_rate
    is_kept = rate == before.learning_rate and not share_rates(earlier, now)
    if is_kept and "prodigy" not in (earlier, now):
        usual = "several times as much" if now == "schedulefree" else "a seventh to a tenth of it"
        yield f"train.learning_rate is {rate:g}, which {origin} has for {earlier}; {now} usually takes {usual}."


def _of_rates(profile: Profile) -> Iterator[str]:
    train = profile.train
    if train.optimizer != "prodigy" and train.learning_rate >= LEAST_FACTOR:
        yield (
            f"train.learning_rate is {train.learning_rate:g}: {train.optimizer} moves every weight by about that much "
            "in a step; usual rates are up to 0.01, and only prodigy takes 1."
        )
    text_rate = train.text_encoder_learning_rate
    trains_text = train.text_encoder and profile.method != "textual-inversion"
    if train.learning_rate == 0:
        rest = " but the text encoder" if trains_text and text_rate else ""
        yield f"train.learning_rate is 0: nothing is learnt{rest}."
    elif trains_text and text_rate == 0:
        yield "train.text_encoder_learning_rate is 0: the text encoder learns nothing."


def _of_text_rates(profile: Profile) -> Iterator[str]:
    """Lines where text encoders have settings and do not learn."""
    train = profile.train
    names = ("text_encoder_learning_rate", "text_encoder_2_learning_rate")
    rates = {f"train.{name}": getattr(train, name) for name in names if getattr(train, name) is not None}
    if profile.method != "textual-inversion":
        for key, rate in rates.items() if not train.text_encoder else ():
            yield f"{key} is {rate:g}, but train.text_encoder is off: it is not trained."
        return
    # It is on where nothing is said of it, as a profile of one's own may leave it.
    is_asked = train.text_encoder and "text_encoder" in train.model_fields_set
    given = [*(["train.text_encoder"] if is_asked else []), *rates]
    if given:
        verb = "is" if len(given) == 1 else "are"
        yield (
            f"{', '.join(given)} {verb} given, but the method is textual-inversion: only the word's vectors learn, at "
            "train.learning_rate."
        )


def _of_large_b_rate(profile: Profile) -> Iterator[str]:
    rate, ratio = profile.train.learning_rate, profile.lora.b_rate_ratio
    if rate < LEAST_FACTOR <= rate * ratio:
        yield (
            f"lora.b_rate_ratio is {ratio:g}: B matrices learn at {rate * ratio:g}, and usual rates are up to 0.01; "
            "the rate of the A matrices, train.learning_rate, is meant to be the usual one or less."
        )


def _of_prior(prior: PriorSettings) -> Iterator[str]:
    if prior.empty_share and prior.source != "teacher":
        yield f"prior.empty_share is {prior.empty_share:g}; it is for prior.source=teacher, not {prior.source}."


def _of_captions(images: ImageSettings) -> Iterator[str]:
    if images.caption_shuffle != "off" and not (images.caption_share or images.cutouts or images.scene_cutouts):
        yield f"images.caption_shuffle is {images.caption_shuffle}, but images.caption_share is 0: no captions."


def _of_masks(images: ImageSettings) -> Iterator[str]:
    """A line where settings are given that need masks, and none are used."""
    settings = {
        "crop=subject": images.crop == "subject",
        "cutouts": images.cutouts,
        "scene_cutouts": images.scene_cutouts,
    }
    given = [f"images.{key}" for key, is_given in settings.items() if is_given]
    if images.mask_loss == 1 and given:
        verb = "has" if len(given) == 1 else "have"
        yield f"images.mask_loss is 1, so that masks are not used: {', '.join(given)} {verb} no effect."


def _of_warmup(train: TrainSettings) -> Iterator[str]:
    if train.warmup_steps and train.warmup_steps >= train.steps:
        # The rate of step n is that of the n - 1 steps before it.
        reached = train.learning_rate * (train.steps - 1) / train.warmup_steps
        yield (
            f"train.warmup_steps is {train.warmup_steps}, but the run has {counted(train.steps, 'step')}: the rate "
            f"reaches only {reached:.3g}, never {train.learning_rate:.3g}."
        )


def _of_schedule(train: TrainSettings) -> Iterator[str]:
    usual = type(train)()
    for name, value in (("cosine-restarts", ("schedule_cycles",)), ("polynomial", ("schedule_power", "schedule_end"))):
        for key in value:
            if train.schedule != name and getattr(train, key) != getattr(usual, key):
                yield f"train.{key} is {getattr(train, key):g}; it is for train.schedule={name}, not {train.schedule}."
    if train.schedule == "cosine-restarts" and train.schedule_cycles == 1:
        yield "train.schedule_cycles is 1: cosine-restarts without a restart is cosine."
    if train.schedule == "cosine-restarts" and train.schedule_cycles > train.steps:
        yield (
            f"train.schedule_cycles is {train.schedule_cycles}, but the run has {counted(train.steps, 'step')}: "
            "its cycles are shorter than a step."
        )


def _of_optimiser(profile: Profile) -> Iterator[str]:
    train, usual = profile.train, type(profile.train)()
    in_lora = "; a LoRA on linear layers has none" if profile.method == "lora" else ""
    reasons = {
        "adafactor": "which has none",
        "muon": f"which has none: it is for weights that are no matrices, which AdamW takes{in_lora}",
    }
    for name in ("beta1", "beta2", "epsilon") if train.optimizer in reasons else ():
        value = getattr(train, name)
        if value != getattr(usual, name):
            yield f"train.{name} is {value:g}, but train.optimizer is {train.optimizer}, {reasons[train.optimizer]}."


def _of_loss(train: TrainSettings) -> Iterator[str]:
    usual = type(train)()
    for key in ("huber_schedule", "huber_c"):
        if train.loss != "pseudo-huber" and getattr(train, key) != getattr(usual, key):
            yield f"train.{key} is {getattr(train, key)}; it is for train.loss=pseudo-huber, not {train.loss}."


def _of_previews(profile: Profile) -> Iterator[str]:
    train = profile.train
    if train.preview_prompt is not None and not train.preview_every:
        yield "train.preview_prompt is given, but train.preview_every is 0: no preview is generated."
    if train.preview_every > train.steps:
        steps = counted(train.steps, "step")
        yield f"train.preview_every is {train.preview_every}, but the run has {steps}: no previews."


def _of_adapter(profile: Profile) -> Iterator[str]:
    usual = type(profile.lora)()
    if profile.method != "lora":
        yield from _of_section("lora", profile.lora, profile, "nothing gets an adapter")
        return
    if not profile.train.text_encoder and profile.lora.text_targets != usual.text_targets:
        yield "lora.text_targets is given, but train.text_encoder is off: the text encoder gets no adapter."
    for key, kinds in (("factor", ("lokr",)), ("decompose_both", ("lokr",)), ("tucker", ("lokr", "loha"))):
        if getattr(profile.lora, key) != getattr(usual, key) and profile.lora.kind not in kinds:
            wanted = " or ".join(kinds)
            yield f"lora.{key} is given; it is for lora.kind={wanted}, not {profile.lora.kind}."
    if profile.lora.tucker and profile.lora.kind != "lora" and not any(map(_has_kernel, profile.lora.targets)):
        yield (
            "lora.tucker is true, but none of lora.targets is a convolution with a kernel, such as conv1 or conv2: "
            "only those get a core."
        )


def _has_kernel(target: str) -> bool:
    """Whether the name of a UNet's layer is that of a convolution whose kernel is larger than 1."""
    last = target.rpartition(".")[2]
    return "conv" in last and last != "conv_shortcut"


def _of_words(profile: Profile) -> Iterator[str]:
    if profile.method != "textual-inversion":
        yield from _of_section("inversion", profile.inversion, profile, "no word gets vectors")


def _of_section(name: str, section: LoraSettings | InversionSettings, profile: Profile, why: str) -> Iterator[str]:
    """A line where settings are given that only another method has."""
    usual = type(section)()
    given = [f"{name}.{key}" for key in type(section).model_fields if getattr(section, key) != getattr(usual, key)]
    if given:
        verb = "is" if len(given) == 1 else "are"
        method = "lora" if name == "lora" else "textual-inversion"
        yield f"{', '.join(given)} {verb} given, but the method is {profile.method}: {why} without --method {method}."
