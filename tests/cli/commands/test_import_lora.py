"""LoRA files of other tools, brought in as runs: the same pictures come out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image, ImageChops
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tests.cli.made_projects import TRAIN, command, trained_project
from tests.project import photo_makers

Run = Callable[..., Any]
DRAW = ["-n", 1, "--steps", 2, "--guidance", 3, "--seed", 5, "--json"]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One small run, alpha 8 at rank 4, and kohya's file of it."""
    made = trained_project(tmp_path_factory.mktemp("lora"), "--method", "lora", "--set=lora.alpha=8")
    out = made / "dog.safetensors"
    command("-C", made, "export", 1, "--to", "kohya", "--precision", "fp32", "--out", out, "--quiet")
    return made


@pytest.fixture
def lora(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(project)
    return project / "dog.safetensors"


def drawn(run: Run, name: str) -> Image.Image:
    done = run("generate", "a sks dog", "--run", name, *DRAW)
    assert done.code == 0, done.err
    with Image.open(done.document["images"][0]["path"]) as image:
        return image.convert("RGB")


def test_a_kohya_file_becomes_a_run_that_draws_the_same(run: Run, lora: Path) -> None:
    done = run("import-lora", lora, "--json")
    assert done.code == 0, done.err
    record = done.document
    assert (record["state"], record["method"], record["profile"]["lora"]["alpha"]) == ("finished", "lora", 8.0)
    assert [(one["identifier"], one["class_noun"]) for one in record["subjects"]] == [("sks", "dog")]
    assert record["base"]["hash"] and record["imported"]["file"] == lora.name
    assert ImageChops.difference(drawn(run, "1"), drawn(run, record["name"])).getbbox() is None
    again = run("export", record["name"], "--to", "kohya", "--precision", "fp32", "--json").document
    assert again["difference"] == 0.0
    one, other = load_file(lora), load_file(again["path"])
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_a_diffusers_file_becomes_a_run_too(run: Run, project: Path, lora: Path) -> None:
    file = project / "runs" / "0001-dog" / "weights" / "pytorch_lora_weights.safetensors"
    record = run("import-lora", file, "--name", "rex", "--token", "zwx", "--class", "puppy", "--json").document
    assert record["name"].endswith("-rex")
    assert [(one["identifier"], one["class_noun"]) for one in record["subjects"]] == [("zwx", "puppy")]
    assert ImageChops.difference(drawn(run, "1"), drawn(run, record["name"])).getbbox() is None


def stripped(lora: Path, path: Path, change: Callable[[dict[str, torch.Tensor]], None] = lambda tensors: None) -> Path:
    """The same tensors without metadata, with something changed."""
    tensors = load_file(lora)
    change(tensors)
    save_file(tensors, path)
    return path


def test_a_file_that_names_no_words_is_still_drawn_with(run: Run, tmp_path: Path, lora: Path) -> None:
    done = run("import-lora", stripped(lora, tmp_path / "style.safetensors"), "--json")
    assert done.code == 0, done.err
    name = done.document["name"]
    file = tmp_path / "style.safetensors"
    assert f"{name} has none. With them: dreambooth import-lora {file} --token WORD --class NOUN." in done.err
    assert f"That makes a second run; dreambooth runs rm {name} removes this one." in done.err
    assert drawn(run, name).size == (64, 64)
    assert run("export", name, "--to", "kohya").code == 0


def test_a_recipe_is_shown_where_the_file_says_it_and_never_passed_on_otherwise(
    run: Run, tmp_path: Path, lora: Path
) -> None:
    words = ("--token", "zwx", "--class", "puppy")
    said = run("import-lora", lora, *words)
    assert "learning rate  0.01" in said.out
    bare = stripped(lora, tmp_path / "bare.safetensors")
    assert "learning rate" not in run("import-lora", bare, *words).out
    name = run("import-lora", bare, *words, "--json").document["name"]
    again = run("export", name, "--to", "kohya", "--out", tmp_path / "again.safetensors", "--json").document["path"]
    with safe_open(again, "pt") as file:
        of_training = ("_rate", "_lr", "optimizer", "_scheduler", "_seed", "steps", "resolution", "_weight")
        assert "ss_network_dim" in file.metadata()
        assert not [key for key in file.metadata() if key.startswith("ss_") and key.endswith(of_training)]


@pytest.mark.parametrize(
    ("metadata", "said", "base"),
    [
        ({"ss_sd_model_name": "tiny-xl"}, "It says that it was made on tiny-xl.", "tiny-xl"),
        (
            {"ss_sd_model_name": "dream 8.safetensors", "ss_base_model_version": "sd_v1"},
            "It says that it was made on dream 8.safetensors (sd_v1).",
            "sd-v1-5",
        ),
        (None, "It does not say on which base it was made.", "BASE"),
    ],
)
def test_a_file_for_another_base_says_which_and_what_to_type(
    run: Run, tmp_path: Path, lora: Path, metadata: dict[str, str] | None, said: str, base: str
) -> None:
    file = tmp_path / "other.safetensors"
    tensors = {f"lora_unet_nowhere.lora_{half}.weight": torch.ones(1, 1) for half in ("down", "up")}
    save_file(tensors, file, metadata)
    ended = run("import-lora", file)
    assert ended.code == 6
    assert f"which this base does not have. {said}" in ended.err
    assert f"dreambooth init NEW --base {base}; dreambooth -C NEW import-lora {file}" in ended.err


def wider(tensors: dict[str, torch.Tensor]) -> None:
    name = next(name for name in tensors if name.endswith("lora_down.weight"))
    tensors[name] = torch.zeros(tensors[name].shape[0], 7)


def not_finite(tensors: dict[str, torch.Tensor]) -> None:
    next(tensor for name, tensor in tensors.items() if name.endswith("up.weight")).fill_(torch.nan)


@pytest.mark.parametrize(("change", "code"), [(wider, 6), (not_finite, 6), (lambda tensors: tensors.clear(), 4)])
def test_a_file_that_cannot_be_used_leaves_no_run(
    run: Run, project: Path, tmp_path: Path, lora: Path, change: Callable[..., None], code: int
) -> None:
    before = sorted((project / "runs").iterdir())
    ended = run("import-lora", stripped(lora, tmp_path / "bad.safetensors", change))
    assert ended.code == code, ended.err
    assert sorted((project / "runs").iterdir()) == before


def test_one_word_needs_the_other(run: Run, lora: Path) -> None:
    assert run("import-lora", lora, "--token", "sks").code == 2


PAIRS = ["--token", "sks", "--class", "dog", "--token", "gote", "--class", "shades"]


def words_in(record: dict[str, Any]) -> list[tuple[str, str, str]]:
    return [(one["name"], one["identifier"], one["class_noun"]) for one in record["subjects"]]


def test_a_repeated_token_and_class_are_pairs(run: Run, lora: Path) -> None:
    record = run("import-lora", lora, *PAIRS, "--json").document
    assert words_in(record) == [("dog", "sks", "dog"), ("shades", "gote", "shades")]
    named = ["--token", "rex=soca", "--class", "cat", "--token", "glasses=dbz", "--class", "glasses=lamp"]
    record = run("import-lora", lora, *named, "--json").document
    assert words_in(record) == [("rex", "soca", "cat"), ("glasses", "dbz", "lamp")]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--token", "sks", "--token", "zwx", "--class", "dog"], "2 of one and 1 of the other"),
        (["--token", "sks", "--class", "dog", "--token", "SKS", "--class", "cat"], "is given to two subjects"),
        (["--token", "a=sks", "--class", "b=dog"], "name two subjects"),
    ],
)
def test_words_that_make_no_pairs_are_told(run: Run, lora: Path, words: list[str], said: str) -> None:
    ended = run("import-lora", lora, *words)
    assert (ended.code, said in ended.err) == (2, True), ended.err


def test_all_subjects_that_a_file_names_come_back_with_their_names(run: Run, tmp_path: Path, lora: Path) -> None:
    subjects = [{"name": "wolf", "word": "waj", "class": "cat"}, {"name": "beam", "word": "zawa", "class": "lamp"}]
    save_file(load_file(lora), tmp_path / "both.safetensors", metadata={"dreambooth.subjects": json.dumps(subjects)})
    record = run("import-lora", tmp_path / "both.safetensors", "--json").document
    assert words_in(record) == [("wolf", "waj", "cat"), ("beam", "zawa", "lamp")]
    one = run("import-lora", tmp_path / "both.safetensors", "--token", "onex", "--class", "toy", "--json")
    assert "names 2 subjects (waj cat, zawa lamp)" in one.err


@pytest.mark.parametrize("target", ["kohya", "lora"])
def test_a_lora_of_two_subjects_comes_back_as_two_elsewhere(
    run: Run, project: Path, tmp_path: Path, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    photo_makers.save(tmp_path / "in" / "0.png", photo_makers.plain((200, 20, 50)))
    words = ["--class", "cat", "--token", "nlwx" if target == "kohya" else "cae"]
    added = run("add-subject", f"tom-{target}", *words, tmp_path / "in")
    assert added.code == 0, added.err
    both = ["--subject", "dog", "--subject", f"tom-{target}", "--method", "lora"]
    trained = run("train", *both, *TRAIN, "--json")
    assert trained.code == 0, trained.err
    file = tmp_path / "both.safetensors"
    assert run("export", trained.document["name"], "--to", target, "--out", file).code == 0
    assert run("init", tmp_path / "elsewhere", "--base", project.parent / "base").code == 0
    record = run("-C", tmp_path / "elsewhere", "import-lora", file, "--json").document
    assert words_in(record) == [("dog", "sks", "dog"), (f"tom-{target}", words[3], "cat")]


def imported_with_embedding(run: Run, tmp_path: Path, lora: Path) -> Any:
    vectors = torch.randn(2, 16, generator=torch.Generator().manual_seed(1)) * 3
    bundle = {"bundle_emb.zqv.string_to_param.*": vectors}
    save_file(load_file(lora) | bundle, tmp_path / "bundle.safetensors")
    done = run("import-lora", tmp_path / "bundle.safetensors", "--token", "sks", "--class", "dog", "--json")
    assert done.code == 0, done.err
    return done


def test_bundled_embeddings_come_along_and_are_drawn_with_by_their_word(run: Run, tmp_path: Path, lora: Path) -> None:
    done = imported_with_embedding(run, tmp_path, lora)
    assert "embedding 'zqv'" in done.err
    name = done.document["name"]
    assert ImageChops.difference(drawn(run, "1"), drawn(run, name)).getbbox() is None
    how = [*DRAW, "--weights", "1"]
    with_word = [pixels(run("generate", "a zqv", "--run", name, *more)) for more in (DRAW, how)]
    assert with_word[0] == with_word[1] != pixels(run("generate", "a zqv", "--run", 1, *DRAW))
    exported = run("export", name, "--to", "kohya", "--json")
    assert "The embedding 'zqv' that came with it is not in this file" in exported.err
    assert run("export", name, "--to", "diffusers", "--json").code == 0
    alone = run("import-embedding", tmp_path / "bundle.safetensors", "--json").document
    assert words_in(alone) == [("zqv", "zqv", "")]


def test_a_lora_with_embeddings_is_not_trained_further_without_them(
    run: Run, project: Path, tmp_path: Path, lora: Path
) -> None:
    name = imported_with_embedding(run, tmp_path, lora).document["name"]
    before = sorted((project / "runs").iterdir())
    refused = run("train", "--from", name, "--subject", "dog", *TRAIN)
    assert (refused.code, "the embedding 'zqv'" in refused.err, "leave --from out" in refused.err) == (6, True, True)
    assert sorted((project / "runs").iterdir()) == before


def pixels(done: Any) -> bytes:
    assert done.code == 0, done.err
    with Image.open(done.document["images"][0]["path"]) as image:
        return image.convert("RGB").tobytes()


def test_dora_on_some_layers_is_drawn_with_and_exported_merged(run: Run, tmp_path: Path, lora: Path) -> None:
    def with_lengths(tensors: dict[str, torch.Tensor]) -> None:
        for name in sorted(name for name in tensors if name.endswith("lora_up.weight"))[::2]:
            tensors[name.replace("lora_up.weight", "dora_scale")] = torch.full((tensors[name].shape[0], 1), 1.5)

    done = run("import-lora", stripped(lora, tmp_path / "dora.safetensors", with_lengths), *PAIRS[:4], "--json")
    assert done.code == 0, done.err
    name = done.document["name"]
    alone, with_weight = (run("generate", "a sks dog", "--run", name, *DRAW, *more) for more in ([], ["--weights", 1]))
    assert pixels(alone) == pixels(with_weight)
    refused = run("export", name, "--to", "lora")
    assert (refused.code, "on some of its layers only" in refused.err) == (6, True), refused.err
    assert run("export", name, "--to", "diffusers", "--precision", "fp32", "--json").code == 0


def test_dora_along_the_inputs_is_drawn_with_and_exported_merged(run: Run, tmp_path: Path, lora: Path) -> None:
    def with_lengths(tensors: dict[str, torch.Tensor]) -> None:
        for name in [name for name in tensors if name.endswith("lora_down.weight")]:
            stem = name.removesuffix(".lora_down.weight")
            tensors[f"{stem}.dora_scale"] = torch.full((1, tensors[name].shape[1]), 1.5)

    done = run("import-lora", stripped(lora, tmp_path / "dora.safetensors", with_lengths), *PAIRS[:4], "--json")
    assert done.code == 0, done.err
    name = done.document["name"]
    assert ImageChops.difference(drawn(run, "1"), drawn(run, name)).getbbox() is not None
    refused = run("export", name, "--to", "lora")
    assert (refused.code, "along the inputs" in refused.err) == (6, True), refused.err
    merged = run("export", name, "--to", "diffusers", "--precision", "fp32", "--json")
    assert merged.code == 0, merged.err


def test_a_folder_that_pefts_tools_wrote_is_taken_whole(run: Run, project: Path, tmp_path: Path, lora: Path) -> None:
    weights = load_file(project / "runs" / "0001-dog" / "weights" / "pytorch_lora_weights.safetensors")
    plain = {name.replace("unet.", "base_model.model."): tensor for name, tensor in weights.items()}
    save_file(plain, tmp_path / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 4, "use_rslora": True}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    record = run("import-lora", tmp_path, *PAIRS[:4], "--json").document
    assert record["profile"]["lora"]["alpha"] == 8.0  # 4 by the root of 4, as 8 by 4


def test_other_kinds_are_told_before_the_base_is_loaded(run: Run, project: Path, tmp_path: Path, lora: Path) -> None:
    torch.save([torch.ones(4, 8), torch.ones(8, 4)], tmp_path / "lora_weight.pt")
    save_file({"emb_params": torch.ones(1, 16)}, tmp_path / "word.safetensors")
    for file, said in (("lora_weight.pt", "first trainers"), ("word.safetensors", "import-embedding")):
        ended = run("import-lora", tmp_path / file)
        assert (ended.code, said in ended.err) == (6, True), ended.err
    ended = run("import-embedding", lora)
    assert (ended.code, "import-lora" in ended.err) == (6, True), ended.err


def with_metadata(lora: Path, path: Path, **metadata: str) -> Path:
    save_file(load_file(lora), path, metadata=metadata)
    return path


@pytest.mark.parametrize(
    "says",
    [{"modelspec.prediction_type": "v"}, {"ss_v_parameterization": "True"}, {"ss_base_model_version": "sd_v2_v"}],
)
def test_a_lora_for_a_base_that_predicts_v_is_told(run: Run, lora: Path, tmp_path: Path, says: dict[str, str]) -> None:
    done = run("import-lora", with_metadata(lora, tmp_path / "v.safetensors", **says), *PAIRS[:4], "--json")
    assert done.code == 0, done.err
    assert "a base that predicts v_prediction, but the project's predicts epsilon" in " ".join(done.err.split())


def test_nothing_is_told_of_a_lora_that_predicts_what_the_base_does(run: Run, lora: Path) -> None:
    assert "predicts" not in run("import-lora", lora, "--json").err


def test_layers_in_whole_numbers_are_refused_as_quantised(run: Run, lora: Path, tmp_path: Path) -> None:
    def in_bytes(tensors: dict[str, torch.Tensor]) -> None:
        for name in [name for name in tensors if "lora_down" in name]:
            tensors[name] = (tensors[name] * 100).to(torch.int8)

    ended = run("import-lora", stripped(lora, tmp_path / "int8.safetensors", in_bytes), *PAIRS[:4])
    assert ended.code == 6
    assert "is quantised" in ended.err and "int8" in ended.err
