from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from dbcli.errors import ConfigError, DataError, UsageError
from dbcli.project.settings.profile_settings import Profile
from dbcli.project.settings.profiles import (
    FORMS_OF_LORA,
    frozen_profile,
    known_keys,
    load_profile,
    parse_set,
    parse_sets,
    resolve,
    shipped_profiles,
)

ONE, OTHER = "a sketch of a {identifier} {class}", "a {identifier} {class}"
TINY_XL_WORDS = "tiny-xl-textual-inversion"
PROFILES = Path(__file__).resolve().parents[3] / "profiles"


def test_the_shipped_profiles() -> None:
    assert shipped_profiles() == [
        "full",
        "lora",
        "paper",
        "sdxl-full",
        "sdxl-lora",
        "textual-inversion",
        "tiny",
        "tiny-flow-lora",
        "tiny-lora",
        "tiny-textual-inversion",
        "tiny-xl-textual-inversion",
        "zimage-lora",
    ]


def test_tiny_xls_words_learn_as_tinys_at_a_rate_for_vectors_of_a_32nd() -> None:
    one, other = (resolve([(name, load_profile(name))]) for name in ("tiny-textual-inversion", TINY_XL_WORDS))
    assert other.train.learning_rate == one.train.learning_rate / 32
    same = other.train.model_copy(update={"learning_rate": one.train.learning_rate})
    assert other.model_copy(update={"train": same}) == one


def test_sdxl_in_little_memory_holds_together() -> None:
    full, lora = (resolve([(name, load_profile(name))]) for name in ("sdxl-full", "sdxl-lora"))
    assert (full.train.fused_backward, full.train.gradient_clip, full.train.stochastic_rounding) == (True, 0.0, True)
    assert (lora.lora.base, lora.train.precision, lora.train.text_encoder) == ("bf16", "bf16", False)


def test_full_is_what_the_study_found_best() -> None:
    profile = resolve([("full", load_profile("full"))])
    assert (profile.method, profile.train.learning_rate, profile.train.steps) == ("full", 1e-6, 800)
    assert profile.train.text_encoder
    assert (profile.prior.enabled, profile.prior.weight, profile.prior.images) == (True, 1.0, 100)
    draw = profile.draw
    assert (draw.sampler, draw.eta, draw.steps, draw.guidance, draw.count) == ("ddim", 0.0, 100, 10.0, 8)


def test_lora_is_rank_4_at_a_hundred_times_the_rate() -> None:
    profile = resolve([("lora", load_profile("lora"))])
    assert (profile.method, profile.train.learning_rate, profile.train.steps) == ("lora", 1e-4, 500)
    assert (profile.lora.rank, profile.lora.alpha) == (4, 4)
    assert profile.lora.targets == ["to_q", "to_k", "to_v", "to_out.0"]
    assert profile.prior.enabled


def test_paper_is_the_papers() -> None:
    profile = resolve([("paper", load_profile("paper"))])
    assert (profile.train.learning_rate, profile.train.steps) == (5e-6, 1000)
    assert (profile.prior.weight, profile.prior.images) == (1.0, 1000)


@pytest.mark.parametrize("name", ["tiny", "tiny-lora"])
def test_the_profiles_of_the_embedded_base_share_one_prior_set(name: str) -> None:
    mine, tiny = (resolve([(one, load_profile(one))]).prior for one in (name, "tiny"))
    fields = ("steps", "guidance", "sampler", "template", "images")
    assert [getattr(mine, field) for field in fields] == [getattr(tiny, field) for field in fields]


@pytest.mark.parametrize("name", shipped_profiles())
def test_every_setting_of_a_shipped_profile_says_why(name: str) -> None:
    for line in (PROFILES / f"{name}.yaml").read_text("utf-8").splitlines():
        if re.match(r"^\s*\w+:\s*\S", line) and not line.startswith("#"):
            assert re.search(r"\S {2,}# .{8,}", line), line


def test_the_defaults_need_no_layer() -> None:
    assert resolve([]) == Profile()
    assert resolve([("project file", {"train": None})]) == Profile()


def test_the_last_layer_wins_key_by_key() -> None:
    profile = resolve(
        [
            ("profile", {"train": {"steps": 100, "batch_size": 2}}),
            ("project file", {"train.steps": 200}),
            ("--set", {"train": {"steps": 300}}),
        ]
    )
    assert (profile.train.steps, profile.train.batch_size) == (300, 2)


def test_a_frozen_profile_resolves_to_itself() -> None:
    profile = resolve([("tiny", load_profile("tiny"))])
    assert resolve([("the run", profile.model_dump(mode="json"))]) == profile


def test_all_faults_come_in_one_error_with_layer_and_key() -> None:
    with pytest.raises(ConfigError) as caught:
        resolve(
            [
                ("project file", {"train": {"stepz": 3, "batch_size": True}, "learning_rate": 3}),
                ("--set", {"train.steps": "5", "lora": 4, "prior.template": "a {dog}", "draw.guidance": -1}),
                ("--method", {"method": "loar", "images.resolution": 100, "lora.targets": []}),
            ]
        )
    assert caught.value.message.splitlines() == [
        "The settings have 10 faults:",
        "  train.stepz (from project file): is not a setting; did you mean train.steps?",
        "  learning_rate (from project file): is not a setting; did you mean train.learning_rate?",
        "  lora (from --set): is a section; set its keys, such as lora.rank",
        "  method (from --method): should be 'full', 'lora' or 'textual-inversion' (found 'loar')",
        "  train.steps (from --set): should be a whole number (found '5')",
        "  train.batch_size (from project file): should be a whole number (found True)",
        "  prior.template (from --set): should use no other field than {class}, not {dog} (found 'a {dog}')",
        "  lora.targets (from --method): List should have at least 1 item after validation, not 0 (found [])",
        "  images.resolution (from --method): should be a multiple of 8 (found 100)",
        "  draw.guidance (from --set): should be greater than or equal to 0 (found -1)",
    ]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("train.learning_rate", float("nan")),
        ("train.learning_rate", float("inf")),
        ("train.steps", 0),
        ("train.steps", 1.5),
        ("train.ema", 1.0),
        ("train.text_encoder", "no"),
        ("train.device", "gpu"),
        ("train.schedule", "Constant"),
        ("draw.sampler", "../x"),
        ("draw.eta", 2),
        ("lora.rank", 0),
        ("images.caption_share", 1.5),
    ],
)
def test_values_out_of_range_are_refused(key: str, value: object) -> None:
    with pytest.raises(ConfigError, match=re.escape(key) + r" \(from --set\)"):
        resolve([("--set", {key: value})])


@pytest.mark.parametrize(("sentences", "at"), [("a {name}", 0), ([OTHER, "a {name}"], 1)])
def test_a_sentence_that_cannot_be_filled_is_refused_by_its_place(sentences: object, at: int) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"images.templates.{at} (from --set): should use no other field")):
        resolve([("--set", {"images.templates": sentences})])


def test_a_thousand_may_be_written_1e3() -> None:
    assert resolve([("--set", dict([parse_set("train.steps=1e3")]))]).train.steps == 1000


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("train.learning_rate=5e-6", ("train.learning_rate", 5e-6)),
        ("prior.enabled=false", ("prior.enabled", False)),
        ("prior.template=a photo of a {class}", ("prior.template", "a photo of a {class}")),
        ("lora.targets=[to_q, to_k]", ("lora.targets", ["to_q", "to_k"])),
        ("train.ema=null", ("train.ema", None)),
        (" train.preview_prompt =a=b", ("train.preview_prompt", "a=b")),
        ("method=lora", ("method", "lora")),
    ],
)
def test_set_reads_its_value_as_yaml(text: str, expected: tuple[str, object]) -> None:
    assert parse_set(text) == expected


@pytest.mark.parametrize("text", ["train.steps", "=3", ""])
def test_set_without_key_or_value_shows_how(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_set(text)
    assert "train.learning_rate=5e-6" in str(caught.value.hint)


def test_set_with_an_unknown_key_suggests_the_near_one() -> None:
    with pytest.raises(ConfigError, match="did you mean train.learning_rate"):
        parse_set("train.learning_rat=1")


def test_every_fault_of_what_was_typed_comes_together() -> None:
    with pytest.raises(ConfigError) as caught:
        resolve([("--set", parse_sets(["lora.rank=0", "lora.alpha=x", "train.learnrate=3"]))])
    assert caught.value.message.splitlines() == [
        "The settings have 3 faults:",
        "  train.learnrate (from --set): is not a setting; did you mean train.learning_rate?",
        "  lora.rank (from --set): should be greater than or equal to 1 (found 0)",
        "  lora.alpha (from --set): should be a number (found 'x')",
    ]


@pytest.mark.parametrize("text", ["train=null", "train=5", "train={steps: 3}"])
def test_a_section_is_no_setting(text: str) -> None:
    for parse in (parse_set, lambda one: parse_sets([one])):
        with pytest.raises(ConfigError, match=r"is a section; set its keys, such as train\.steps\.$"):
            parse(text)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("train.lr", "train.learning_rate"), ("network_dim", "lora.rank"), ("max_train_steps", "train.steps")],
)
def test_what_other_trainers_call_a_setting_is_that_setting(typed: str, meant: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_set(f"{typed}=1")
    assert caught.value.message == f"{typed} (from --set): is not a setting; did you mean {meant}?"


@pytest.mark.parametrize(("name", "setting"), FORMS_OF_LORA.items())
def test_a_form_of_lora_that_is_taken_for_a_method_or_a_kind_gets_the_setting_it_is(name: str, setting: str) -> None:
    for key in ("method", "lora.kind"):
        if f"{key}={name}" == setting:
            continue
        with pytest.raises(ConfigError) as caught:
            resolve([("--set", {key: name})])
        assert caught.value.hint == f"--method lora --set {setting}"
    assert resolve([("--set", {"method": "lora", **parse_sets([setting])})]).method == "lora"
    with pytest.raises(ConfigError) as caught:
        resolve([("--set", {"images.crop": name})])
    assert caught.value.hint is None


def test_a_profile_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("train: {steps: 3}\n")
    assert load_profile(path) == {"train": {"steps": 3}}
    with pytest.raises(UsageError, match="does not exist"):
        load_profile(tmp_path / "other.yaml")


def test_an_unknown_profile_suggests_the_near_one() -> None:
    with pytest.raises(UsageError, match="Did you mean 'lora'"):
        load_profile("loar")


def test_every_setting_has_a_description() -> None:
    keys = known_keys()
    assert "train.learning_rate" in keys and "method" in keys
    assert [key for key, text in keys.items() if not text] == []


def test_the_shipped_profiles_mean_the_same_to_other_yaml_readers_but_for_numbers() -> None:
    plain = yaml.safe_load((PROFILES / "full.yaml").read_text("utf-8"))
    assert plain["train"]["learning_rate"] == "1e-6"  # why this project reads YAML by its own rules
    assert load_profile("full")["train"]["learning_rate"] == 1e-6


def test_after_divergence_a_run_stops_unless_a_profile_says_otherwise() -> None:
    for name in shipped_profiles():
        assert resolve([(name, load_profile(name))]).train.on_divergence == "stop"
    assert resolve([("--set", {"train.on_divergence": "lower-rate"})]).train.on_divergence == "lower-rate"
    with pytest.raises(ConfigError, match="on_divergence"):
        resolve([("--set", {"train.on_divergence": "ignore"})])


def test_faulty_settings_of_a_run_name_its_record() -> None:
    with pytest.raises(DataError, match=r"runs/0003-dog/run\.json[^:]*:\n.*train\.steps"):
        frozen_profile({"name": "tiny", "train": {"steps": "many"}}, "runs/0003-dog/run.json")


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("all-linear", ["all-linear"]), ("to_q", ["to_q"]), ("to_q, to_k", ["to_q", "to_k"]), ("[to_q]", ["to_q"])],
)
def test_layers_may_be_typed_without_brackets(typed: str, meant: list[str]) -> None:
    key, value = parse_set(f"lora.targets={typed}")
    assert resolve([("--set", {key: value})]).lora.targets == meant


@pytest.mark.parametrize("value", [-1, True, 1.5, "x", [], [0], [2, 1.5], None])
def test_a_wrong_number_of_photos_to_keep_back_is_one_fault_in_words(value: object) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve([("--set", {"images.held_out": value})])
    lines = caught.value.message.splitlines()
    assert len(lines) == 2
    assert lines[1].startswith("  images.held_out (from --set): should be how many photos, from 0, or a list of their")


@pytest.mark.parametrize(("value", "meant"), [(2, 2), (1e0, 1), ([2, 5], [2, 5]), ([1e0], [1])])
def test_photos_to_keep_back_are_a_number_or_numbers(value: object, meant: object) -> None:
    assert resolve([("--set", {"images.held_out": value})]).images.held_out == meant


def test_one_prompt_of_probes_is_a_list_of_one() -> None:
    key, value = parse_set("probe.prompts=a {identifier} {class}, in oil")
    assert resolve([("--set", {key: value})]).probe.prompts == ["a {identifier} {class}, in oil"]


@pytest.mark.parametrize("layer", [{"images.template": ONE}, {"images": {"template": ONE}}, {"images.templates": ONE}])
def test_one_sentence_as_files_said_it_is_a_list_of_one(layer: dict) -> None:
    below = ("profile", {"images.templates": [OTHER, ONE]})
    assert resolve([below, ("yours", layer)]).images.templates == [ONE]
    assert parse_set(f"images.template={ONE}") == ("images.templates", ONE)


def test_what_the_program_proposes_is_among_the_sentences_that_are_taught() -> None:
    for name in shipped_profiles():
        assert "a {identifier} {class}" in resolve([(name, load_profile(name))]).images.templates


def test_the_paper_s_profile_has_its_single_sentence_and_no_captions() -> None:
    paper = resolve([("paper", load_profile("paper"))])
    assert paper.images.templates == ["a {identifier} {class}"]
    assert (paper.prior.template, paper.images.caption_share) == ("a {class}", 0.0)


def test_a_run_that_was_begun_with_one_sentence_keeps_it_with_its_class_prompt_and_every_caption() -> None:
    before = frozen_profile({"images": {"template": ONE, "crop": "center"}, "prior": {"template": "a {class}"}}, "x")
    assert (before.images.templates, before.images.caption_share) == ([ONE], 1.0)
    assert before.prior.template == "a {class}"
    # Records of the first days say nothing of either.
    assert frozen_profile({}, "x").prior.template == "a photo of a {class}"
    now = resolve([]).model_dump(mode="json")
    assert frozen_profile(now, "x") == resolve([])
