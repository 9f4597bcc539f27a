"""Settings that are allowed and hardly meant."""

from __future__ import annotations

from typing import Any

import pytest

from dbcli.errors import ConfigError
from dbcli.project.settings.combinations import cautions, kept_rate
from dbcli.project.settings.profiles import load_profile, resolve, shipped_profiles


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"train.learning_rate": 0.0}, ["train.learning_rate is 0: nothing is learnt."]),
        (
            {"train.steps": 100, "train.warmup_steps": 200, "train.learning_rate": 1e-4},
            # The rate of the last step, the 100th: 99/200 of it.
            ["train.warmup_steps is 200, but the run has 100 steps: the rate reaches only 4.95e-05"],
        ),
        ({"train.text_encoder_learning_rate": 0.0}, ["text_encoder_learning_rate is 0: the text encoder learns"]),
        ({"train.text_encoder": False, "train.text_encoder_learning_rate": 1e-6}, ["text_encoder is off"]),
        ({"train.schedule_cycles": 4}, ["train.schedule_cycles is 4; it is for train.schedule=cosine-restarts"]),
        ({"train.schedule": "cosine-restarts", "train.schedule_cycles": 1}, ["without a restart is cosine"]),
        (
            {"train.schedule": "cosine-restarts", "train.schedule_cycles": 50, "train.steps": 10},
            ["schedule_cycles is 50, but the run has 10 steps"],
        ),
        ({"method": "lora", "train.text_encoder": False, "lora.text_targets": ["q_proj"]}, ["lora.text_targets"]),
        ({"method": "lora", "lora.text_targets": ["q_proj"], "train.text_encoder": True}, []),
        ({"method": "full", "lora.targets": ["to_q"]}, ["lora.targets is given, but the method is full"]),
        (
            {"method": "full", "lora.rank": 8, "lora.kind": "lokr"},
            ["lora.rank, lora.kind are given, but the method is full: nothing gets an adapter without --method lora."],
        ),
        ({"method": "textual-inversion", "lora.dropout": 0.5}, ["lora.dropout is given, but the method is textual-"]),
        ({"method": "lora", "inversion.vectors": 4}, ["inversion.vectors is given, but the method is lora: no word"]),
        ({"train.optimizer": "adafactor", "train.beta2": 0.99}, ["train.beta2 is 0.99, but train.optimizer is ada"]),
        (
            {"method": "lora", "train.optimizer": "muon", "train.beta1": 0.95, "train.epsilon": 1e-6},
            [
                "train.beta1 is 0.95, but train.optimizer is muon, which has none: it is for weights that are no "
                "matrices, which AdamW takes; a LoRA on linear layers has none.",
                "train.epsilon is 1e-06, but train.optimizer is muon",
            ],
        ),
        ({"method": "full", "train.optimizer": "muon", "train.beta2": 0.99}, ["which AdamW takes."]),
        (
            {"method": "textual-inversion", "train.text_encoder": True, "train.text_encoder_learning_rate": 0.0},
            [
                "train.text_encoder, train.text_encoder_learning_rate are given, but the method is textual-inversion: "
                "only the word's vectors learn, at train.learning_rate."
            ],
        ),
        (
            {"method": "textual-inversion", "train.text_encoder": False, "train.text_encoder_2_learning_rate": 1e-5},
            ["train.text_encoder_2_learning_rate is given, but the method is textual-inversion: only the word's"],
        ),
        (
            {"method": "textual-inversion", "train.text_encoder_learning_rate": 1e-5, "train.learning_rate": 0.0},
            [
                "train.learning_rate is 0: nothing is learnt.",
                "train.text_encoder_learning_rate is given",
            ],
        ),
        ({"method": "textual-inversion"}, []),
        ({"method": "lora", "lora.factor": 4}, ["lora.factor is given; it is for lora.kind=lokr, not lora"]),
        (
            {"method": "lora", "lora.kind": "loha", "lora.decompose_both": True, "lora.tucker": True},
            ["lora.decompose_both is given", "lora.tucker is true, but none of lora.targets is a convolution"],
        ),
        (
            {"method": "lora", "lora.kind": "lokr", "lora.factor": 4, "lora.decompose_both": True}
            | {"lora.tucker": True, "lora.targets": ["to_q", "downsamplers.0.conv"]},
            [],
        ),
        (
            {"method": "lora", "lora.kind": "lokr", "lora.tucker": True, "lora.targets": ["proj_in", "conv_shortcut"]},
            ["lora.tucker is true, but none of lora.targets is a convolution with a kernel"],
        ),
        ({"prior.empty_share": 0.25}, ["prior.empty_share is 0.25; it is for prior.source=teacher, not images"]),
        ({"prior.empty_share": 0.25, "prior.source": "teacher"}, []),
        ({"train.huber_c": 0.5}, ["train.huber_c is 0.5; it is for train.loss=pseudo-huber, not squared"]),
        ({"train.huber_c": 0.5, "train.huber_schedule": "constant", "train.loss": "pseudo-huber"}, []),
        ({"images.caption_shuffle": "tags", "images.caption_share": 0.0}, ["images.caption_shuffle is tags, but"]),
        ({"train.preview_prompt": "a {dog}"}, ["train.preview_every is 0: no preview"]),
        ({"train.preview_every": 900}, ["train.preview_every is 900, but the run has 800 steps"]),
        ({"train.warmup_steps": 799}, []),
        ({"images.mask_loss": 1.0, "images.cutouts": 2}, ["masks are not used: images.cutouts has no effect."]),
        (
            {"images.mask_loss": 1.0, "images.crop": "subject", "images.cutouts": 1, "images.scene_cutouts": 1},
            ["images.crop=subject, images.cutouts, images.scene_cutouts have no effect."],
        ),
        ({"images.mask_loss": 1.0}, []),
    ],
)
def test_what_is_hardly_meant_is_said_with_its_key(settings: dict[str, Any], said: list[str]) -> None:
    found = cautions(resolve([("test", settings)]))
    assert len(found) == len(said)
    assert all(part in line for part, line in zip(said, found, strict=True)), found


@pytest.mark.parametrize("name", shipped_profiles())
def test_of_a_shipped_profile_there_is_nothing_to_say(name: str) -> None:
    assert cautions(resolve([(name, load_profile(name))])) == []


def test_the_empty_prompt_has_no_word_to_be_learnt() -> None:
    with pytest.raises(ConfigError, match="images.empty_share: should be 0.0 with method=textual-inversion"):
        resolve([("test", {"images.empty_share": 0.1, "method": "textual-inversion"})])


@pytest.mark.parametrize("method", ["full", "lora", "textual-inversion"])
def test_a_sentence_without_the_identifier_would_teach_the_whole_class(method: str) -> None:
    sentences = ["a {identifier} {class}", "a {class}", "a photo"]
    with pytest.raises(ConfigError) as caught:
        resolve([("", {"method": method, "images.templates": sentences})])
    assert [line.strip() for line in caught.value.message.splitlines() if "images.templates" in line] == [
        "images.templates: should say {identifier} in every sentence: without it photos teach the whole class "
        f"(found '{one}')"
        for one in sentences[1:]
    ]


@pytest.mark.parametrize(
    ("optimisers", "rates", "said"),
    [
        (("schedulefree", "adamw"), (0.01, 0.01), "0.01, which x has for schedulefree; adamw usually takes a seventh"),
        (("adamw", "schedulefree"), (1e-4, 1e-4), "0.0001, which x has for adamw; schedulefree usually takes several"),
        (("schedulefree", "adamw"), (0.01, 1e-3), None),
        (("schedulefree", "schedulefree"), (0.01, 0.01), None),
        (("adamw", "muon"), (1e-3, 1e-3), None),
        (("prodigy", "schedulefree"), (1.0, 1.0), None),
    ],
)
def test_a_rate_that_another_optimiser_has_left_is_pointed_out(
    optimisers: tuple[str, str], rates: tuple[float, float], said: str | None
) -> None:
    before, after = (
        resolve([("", {"train.optimizer": optimizer, "train.learning_rate": rate})])
        for optimizer, rate in zip(optimisers, rates, strict=True)
    )
    found = list(kept_rate(before.train, after.train, "x"))
    assert len(found) == (said is not None)
    assert said is None or said in found[0]


def test_one_rule_weighs_errors() -> None:
    with pytest.raises(ConfigError, match="train.min_snr_gamma: should be left out with train.debiased_estimation"):
        resolve([("test", {"train.debiased_estimation": True, "train.min_snr_gamma": 5.0})])


PRODIGY, SCHEDULE_FREE = {"train.optimizer": "prodigy", "train.learning_rate": 1.0}, {"train.optimizer": "schedulefree"}

PLUS = {"method": "lora", "lora.b_rate_ratio": 16.0}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (PRODIGY | {"train.learning_rate": 1e-6}, "train.learning_rate: should be 1 with train.optimizer=prodigy"),
        (PRODIGY | {"train.text_encoder_learning_rate": 1e-6}, "train.text_encoder_learning_rate: should be left out"),
        (PRODIGY | {"train.text_encoder_2_learning_rate": 0.5}, "text_encoder_2_learning_rate: should be left out"),
        (PRODIGY | {"train.fused_backward": True, "train.gradient_clip": 0.0}, "train.fused_backward: should be false"),
        (
            PRODIGY | {"train.stochastic_rounding": True, "train.precision": "bf16"},
            "train.stochastic_rounding: should be false",
        ),
        (SCHEDULE_FREE | {"train.schedule": "cosine"}, "train.schedule: should be constant"),
        (SCHEDULE_FREE | {"train.ema": 0.99}, "train.ema: should be left out"),
        (SCHEDULE_FREE | {"train.beta1": 0.0}, "train.beta1: should be above 0"),
        (SCHEDULE_FREE | {"train.fused_backward": True, "train.gradient_clip": 0.0}, "train.fused_backward"),
        ({"train.optimizer": "muon", "method": "textual-inversion"}, "train.optimizer: should be adamw"),
        (PRODIGY | PLUS, "lora.b_rate_ratio: should be 1.0 with train.optimizer=prodigy, which finds one rate"),
    ],
)
def test_what_an_optimiser_rules_out_is_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as fault:
        resolve([("test", settings)])
    assert said in fault.value.message and "a fault" in fault.value.message
    assert str(settings["train.optimizer"]) in fault.value.message


@pytest.mark.parametrize(
    "settings",
    [
        PRODIGY,
        PRODIGY | {"train.text_encoder_learning_rate": 1.0, "train.schedule": "cosine", "train.warmup_steps": 9},
        SCHEDULE_FREE | {"train.warmup_steps": 9, "train.text_encoder_learning_rate": 1e-6},
        {"train.optimizer": "muon", "train.fused_backward": True, "train.gradient_clip": 0.0},
        PLUS | SCHEDULE_FREE,
    ],
)
def test_what_goes_with_an_optimiser_is_let_through(settings: dict[str, Any]) -> None:
    assert cautions(resolve([("test", settings)])) == []


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (PLUS | {"method": "full"}, "lora.b_rate_ratio: should be 1.0 with method=full, which has no B matrices"),
        (PLUS | {"lora.kind": "loha"}, "lora.b_rate_ratio: should be 1.0 with lora.kind=loha: only a LoRA has B"),
        (PLUS | {"lora.b_rate_ratio": 0.5}, "lora.b_rate_ratio"),
    ],
)
def test_a_rate_of_its_own_for_b_needs_a_b(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as fault:
        resolve([("test", settings)])
    assert said in fault.value.message and "a fault" in fault.value.message


def test_a_rate_of_b_that_no_run_has_is_pointed_out() -> None:
    (line,) = cautions(resolve([("test", PLUS | {"train.learning_rate": 0.0125})]))
    assert "lora.b_rate_ratio is 16: B matrices learn at 0.2, and" in line


def test_prodigys_rate_with_another_optimiser_is_pointed_out() -> None:
    assert "train.learning_rate is 1: adamw moves" in cautions(resolve([("test", {"train.learning_rate": 1.0})]))[0]
