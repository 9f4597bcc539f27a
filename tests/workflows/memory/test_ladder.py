"""The ladder of memory: every rung is reached from the one above, unless the recipe rules it out."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from diffusers import UNet2DConditionModel

from dbcli.diffusion.estimate.footprint import OPTIMISER_BYTES
from dbcli.errors import ConfigError
from dbcli.project.settings.combinations import contradictions
from dbcli.project.settings.profile_settings import Profile
from dbcli.project.settings.profiles import load_profile, resolve
from dbcli.workflows.memory import ladder
from dbcli.workflows.memory.ladder import HOLD_LESS, LADDER, below, rung_of, rungs


@pytest.fixture(autouse=True)
def without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ladder, "has_gpu", lambda: False)


def way_down(profile: Profile, *, other_method: bool = True, processes: int = 1) -> Iterator[tuple[str, Profile]]:
    found = below(profile, "tiny", other_method=other_method, processes=processes)
    while found is not None:
        yield found[0].name, found[1]
        found = below(found[1], "tiny", other_method=other_method, processes=processes)


def names_below(other_method: bool = True, **settings: object) -> list[str]:
    profile = resolve([("test", {key.replace("__", "."): value for key, value in settings.items()})])
    return [name for name, _ in way_down(profile, other_method=other_method)]


def test_every_rung_is_reached_and_known_again() -> None:
    reached = list(way_down(Profile()))
    assert ["full", *(name for name, _ in reached)] == [rung.name for rung in rungs() if not rung.for_its_method]
    for name, profile in reached:
        on = rung_of(profile)
        assert on is not None
        assert (on.name, contradictions(profile)) == (name, [])


def test_whatever_is_installed_each_name_is_on_the_ladder_once() -> None:
    for names in ([rung.name for rung in rungs()], [one.name for one in LADDER if one.instead_of is None]):
        assert len(names) == len(set(names))
        assert "full, fused backward" in names


def test_a_full_run_that_has_to_stay_one_goes_down_to_weights_in_bfloat16() -> None:
    *_, (name, profile) = way_down(Profile(), other_method=False)
    on = rung_of(profile)
    assert on is not None and on.name == name == "full, weights in bf16"
    assert profile.train.stochastic_rounding and profile.train.precision == "bf16" and contradictions(profile) == []
    assert name not in names_below(other_method=True) and "LoRA" in names_below(other_method=True)
    # An average of weights has no room for its small steps in bfloat16.
    assert name not in names_below(other_method=False, train__ema=0.999)


@pytest.mark.parametrize("other_method", [True, False])
def test_on_several_gpus_no_rung_updates_weights_before_gradients_are_summed(other_method: bool) -> None:
    alone, together = (dict(way_down(Profile(), other_method=other_method, processes=count)) for count in (1, 2))
    fused = [name for name, profile in alone.items() if profile.train.fused_backward]
    assert fused == ["full, fused backward", *(["full, weights in bf16"] if not other_method else [])]
    assert list(together) == [name for name in alone if name not in fused]
    assert not any(profile.train.fused_backward for profile in together.values())


@pytest.mark.parametrize("other_method", [True, False])
@pytest.mark.parametrize("is_installed", [True, False], ids=["with bitsandbytes", "without"])
def test_no_rung_takes_an_optimiser_that_holds_more(
    monkeypatch: pytest.MonkeyPatch, is_installed: bool, other_method: bool
) -> None:
    monkeypatch.setattr(ladder, "_is_here", lambda package, wanted: package is None or is_installed is wanted)
    # It has all that makes a full run small but another optimiser, which holds the least.
    smallest = resolve([("", load_profile("sdxl-full"))])
    assert smallest.train.optimizer == "adafactor"
    assert next(way_down(smallest, other_method=other_method), ("none", None))[0] == (
        "LoRA" if other_method else "none"
    )
    with_room = resolve([("", load_profile("sdxl-full")), ("", {"train.stochastic_rounding": False})])
    found = dict(way_down(with_room, other_method=False))
    assert list(found) == ["full, weights in bf16"]
    assert found["full, weights in bf16"].train.optimizer == "adafactor"


def test_what_is_said_to_hold_less_does() -> None:
    with torch.device("meta"):
        unet = UNet2DConditionModel(cross_attention_dim=768)  # of Stable Diffusion v1's size
    state = {
        name: sum(of_weight(*one) for one in unet.named_parameters()) for name, of_weight in OPTIMISER_BYTES.items()
    }
    for of_rung, held in HOLD_LESS.items():
        assert all(state[kept] < 1.05 * state[of_rung] for kept in held)


def test_a_recipe_of_adapters_goes_down_to_a_base_in_four_bits() -> None:
    assert names_below(method="lora") == ["LoRA, activations recomputed", "LoRA, 8-bit base", "LoRA, 4-bit base"]
    assert names_below(method="lora", lora__base="nf4") == ["LoRA, activations recomputed"]


def test_beside_a_gpu_the_last_rung_keeps_the_frozen_weights_in_the_machines_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert not [rung for rung in rungs() if rung.for_gpus]
    monkeypatch.setattr(ladder, "has_gpu", lambda: True)
    *_, (before, _), (last, profile) = way_down(Profile())
    assert (before, last) == ("LoRA, 4-bit base", "LoRA, 4-bit base offloaded")
    assert profile.lora.offload and contradictions(profile) == []


@pytest.mark.parametrize("kept", ["full", "bf16"])
def test_only_packed_weights_can_be_offloaded(kept: str) -> None:
    with pytest.raises(ConfigError, match="lora.offload: should be false"):
        resolve([("test", {"method": "lora", "lora.base": kept, "lora.offload": True, "train.precision": "bf16"})])


def test_what_somebody_chose_holds_where_a_full_run_becomes_a_lora() -> None:
    chosen = {"train.steps": 7, "train.batch_size": 3, "lora.rank": 2, "images.resolution": 128}
    for name, profile in way_down(resolve([("test", chosen)])):
        values = profile.model_dump()
        found = {key: values[key.split(".")[0]][key.split(".")[1]] for key in chosen}
        assert (name, found) == (name, chosen)
    *_, (_, lora) = way_down(resolve([("shipped", load_profile("tiny")), ("test", chosen)]))
    made_for_it = resolve([("", load_profile("tiny-lora"))])
    assert lora.train.learning_rate == made_for_it.train.learning_rate != load_profile("tiny")["train"]["learning_rate"]
    assert lora.train.gradient_clip == made_for_it.train.gradient_clip > 0


def test_a_full_run_of_two_subjects_that_becomes_a_lora_has_a_loras_steps_for_each() -> None:
    full, lora = (resolve([("", load_profile(name))]).train.steps for name in ("full", "lora"))
    profile: Profile | None = resolve([("", load_profile("full")), ("two subjects", {"train.steps": 2 * full})])
    while profile is not None and profile.method == "full":
        found = below(profile, "sd-v1-4", other_method=True, subjects=2)
        profile = None if found is None else found[1]
    assert profile is not None and lora != full
    assert (profile.method, profile.train.steps) == ("lora", 2 * lora)


@pytest.mark.parametrize("settings", [{"train__accumulation": 2}, {"train__precision": "fp16"}])
def test_a_rung_that_the_recipe_rules_out_is_left_out(settings: dict[str, object]) -> None:
    assert "full, fused backward" in names_below(other_method=False)
    assert "full, fused backward" not in names_below(other_method=False, **settings)
    assert "LoRA" in names_below(**settings)
