"""Settings that each are fine and cannot hold together."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dbcli.project.settings.profile_settings import Profile


def contradictions(profile: Profile) -> list[str]:
    """One line for every setting that another one rules out: its key, what it should be, why, the value found."""
    return [*_of_fused_backward(profile), *_of_rounding(profile), *_of_small_base(profile)]


def _of_fused_backward(profile: Profile) -> list[str]:
    train = profile.train
    if not train.fused_backward:
        return []
    reason = "with train.fused_backward, which"
    return _wrong(
        ("train.gradient_clip", train.gradient_clip, 0, f"{reason} never has all gradients to take a norm of"),
        ("train.accumulation", train.accumulation, 1, f"{reason} keeps no gradient for a second pass"),
    ) + _not_fp16(train.precision, f"{reason} updates before a scaled gradient can be checked")


def _of_rounding(profile: Profile) -> list[str]:
    train = profile.train
    if not train.stochastic_rounding:
        return []
    reason = "with train.stochastic_rounding, which"
    return _wrong(
        ("method", profile.method, "full", f"{reason} is for weights in bf16; those of other methods are few"),
        ("train.precision", train.precision, "bf16", f"{reason} keeps the weights in it"),
        ("train.ema", train.ema, None, f"{reason} has no bits for an average's small steps"),
    )


def _of_small_base(profile: Profile) -> list[str]:
    kept = profile.lora.base
    reason = f"with lora.base={kept}: only packed weights are fetched layer by layer"
    offload = [] if kept in ("int8", "nf4") else _wrong(("lora.offload", profile.lora.offload, False, reason))
    if kept == "full":
        return offload
    found = _wrong(("method", profile.method, "lora", f"with lora.base={kept}: only adapters leave the base frozen"))
    if kept == "bf16" and profile.train.precision != "bf16":
        reason = "with lora.base=bf16, which it computes in"
        found += _wrong(("train.precision", profile.train.precision, "bf16", reason))
    return found + offload


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
