"""Going on from a finished run: another subject beside those it knows, or the same ones for longer."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image, ImageChops
from safetensors.torch import load_file, save_file

from dbcli.project.files.layout import Layout
from dbcli.workflows.training.plan import plan_training
from dbcli.workflows.training.request import TrainRequest
from tests.cli.made_projects import command, trained_project
from tests.project import photo_makers

Run = Callable[..., Any]
KEPT = ["--set=train.checkpoint_every=1", "--set=train.keep_checkpoints=9", "--set=train.keep_finished=all"]
FAST = ["--steps", 4, *KEPT, "--json"]
BARE = ["--set=prior.enabled=false"]
PRIOR = ["--set=prior.enabled=true", "--set=prior.images=2", "--set=prior.steps=1"]
FULL, LORA = "0001-dog", "0002-dog"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a full run of the dog, a LoRA run of it with the text encoder, and a cat not yet learnt."""
    folder = tmp_path_factory.mktemp("parents")
    project = trained_project(folder)
    lora = ["--method", "lora", "--set=train.text_encoder=true", "--set=lora.alpha=6", "--set=lora.dropout=0.1"]
    command("-C", project, "train", "--subject", "dog", "--steps", 2, *lora, *PRIOR, "--set=draw.steps=2", "--quiet")
    photos = [photo_makers.save(folder / f"cat{n}.png", photo_makers.plain((90, 20 + 90 * n, 200))) for n in range(2)]
    command("-C", project, "add-subject", "cat", "--class", "cat", "--token", "zwx", *photos, "--quiet")
    return project


@pytest.fixture
def project(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    copy = Path(shutil.copytree(made, tmp_path / "p"))
    monkeypatch.chdir(copy)
    return copy


def weights(project: Path, run: str) -> dict[str, torch.Tensor]:
    folder = project / "runs" / run / "weights"
    return {
        f"{file.relative_to(folder)}:{name}": tensor
        for file in sorted(folder.rglob("*.safetensors"))
        for name, tensor in load_file(file).items()
    }


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def record_of(project: Path, run: str) -> dict[str, Any]:
    return dict(json.loads((project / "runs" / run / "run.json").read_text()))


@pytest.mark.parametrize("parent", [FULL, LORA])
def test_a_second_subject_is_taught_and_the_first_is_rehearsed(run: Run, project: Path, parent: str) -> None:
    done = run("train", "--from", parent, "--subject", "cat", *PRIOR, *FAST)
    assert done.code == 0, done.err
    record = done.document
    assert (record["parent"], record["name"], record["method"]) == (
        parent,
        "0003-cat",
        "full" if parent == FULL else "lora",
    )
    assert [(one["name"], one["learnt_in"], one["rehearsed"]) for one in record["subjects"]] == [
        ("cat", None, False),
        ("dog", parent, True),
    ]
    prompts = {one["prompt"] for one in record["prior"]["sets"]}
    assert prompts == {"a photo of a cat", "a cat", "a photo of a dog", "a dog"}
    words = ["generate", "a {dog} and a {cat}", "-n", 1, "--steps", 1, "--json"]
    drawn = [run(*words, "--out", "a"), run(*words, "--out", "b", "--checkpoint", 4)]
    assert drawn[0].document["images"][0]["prompt"] == "a sks dog and a zwx cat"
    one, other = (Image.open(done.document["images"][0]["path"]).convert("RGB") for done in drawn)
    assert ImageChops.difference(one, other).getbbox() is None


@pytest.mark.parametrize("parent", [FULL, LORA])
def test_it_begins_with_the_weights_of_the_run_bit_for_bit(run: Run, project: Path, parent: str) -> None:
    done = run("train", "--from", parent, "--subject", "cat", "--set=train.learning_rate=0", *FAST)
    assert done.code == 0, done.err
    assert same(weights(project, "0003-cat"), weights(project, parent))


@pytest.mark.parametrize("parent", [FULL, LORA])
def test_resumed_at_any_step_it_ends_with_the_same_bits(run: Run, project: Path, parent: str) -> None:
    words = ["train", "--from", parent, "--subject", "cat", "--set=train.rehearsal_share=0.25", *PRIOR, *FAST]
    assert run(*words).code == 0
    folder = project / "runs" / "0003-cat"
    whole = weights(project, "0003-cat")
    for step in (0, 1, 3):
        shutil.rmtree(folder / "weights")
        for checkpoint in (folder / "checkpoints").iterdir():
            if int(checkpoint.name.removeprefix("step-")) > step:
                shutil.rmtree(checkpoint)
        (folder / "run.json").write_text(json.dumps(record_of(project, "0003-cat") | {"state": "running"}))
        done = run("train", "--resume", 3)
        assert done.code == 0, done.err
        assert same(weights(project, "0003-cat"), whole)


def test_without_another_subject_the_same_one_is_taught_on_with_fresh_noise(run: Run, project: Path) -> None:
    record = run("train", "--from", 1, *FAST).document
    assert [(one["name"], one["learnt_in"]) for one in record["subjects"]] == [("dog", None)]
    assert record["profile"]["train"]["learning_rate"] == 0.01  # the parent's own, typed when it was trained
    first, second = ((project / "runs" / name / "events.jsonl").read_text() for name in (FULL, record["name"]))
    losses = [{json.loads(line).get("loss") for line in text.splitlines()} - {None} for text in (first, second)]
    assert not losses[0] & losses[1]
    third = run("train", "--from", record["name"], *FAST).document
    assert third["generation"] == 2


def test_without_rehearsal_the_photos_are_not_needed_and_the_words_are_still_known(run: Run, project: Path) -> None:
    shutil.rmtree(project / "subjects" / "dog")
    words = ["train", "--from", 1, "--subject", "cat", *FAST]
    refused = run(*words)
    assert refused.code == 3
    assert "--no-rehearsal" in refused.err
    assert not (project / "runs" / "0003-cat").exists()
    record = run(*words, "--no-rehearsal").document
    assert [(one["name"], one["identifier"], one["rehearsed"]) for one in record["subjects"]] == [
        ("cat", "zwx", False),
        ("dog", "sks", False),
    ]
    assert run("add-subject", "hare", "--class", "hare", "--token", "sks", project / "subjects/cat/photos").code == 6


def imported(run: Run, project: Path, token: str, noun: str, *more: str) -> str:
    file = project / "runs" / LORA / "weights" / "pytorch_lora_weights.safetensors"
    done = run("import-lora", file, "--name", "strange", "--token", token, "--class", noun, "--json", *more)
    assert done.code == 0, done.err
    return str(done.document["name"])


@pytest.mark.parametrize(("token", "noun"), [("zwx", "hamster"), ("ohwx", "zwx")], ids=["identifier", "class noun"])
def test_a_word_that_the_run_knows_already_is_refused(run: Run, project: Path, token: str, noun: str) -> None:
    name = imported(run, project, token, noun, "--allow-collision")
    words = ["train", "--from", name, "--subject", "cat", "--no-rehearsal", *BARE, *FAST]
    refused = run(*words)
    assert refused.code == 6
    assert "zwx" in refused.err and not (project / "runs" / "0004-cat").exists()
    done = run(*words, "--allow-collision")
    assert done.code == 0, done.err
    assert done.document["allow_collision"] is True


def test_an_imported_lora_is_gone_on_from(run: Run, project: Path) -> None:
    name = imported(run, project, "ohwx", "hamster")
    words = ["train", "--from", name, "--subject", "cat", "--set=train.learning_rate=0", *BARE, *FAST]
    assert run(*words).code == 3  # no photos of the hamster
    done = run(*words, "--no-rehearsal")
    assert done.code == 0, done.err
    assert {one["identifier"] for one in done.document["subjects"]} == {"zwx", "ohwx"}
    assert same(weights(project, done.document["name"]), weights(project, name))


def test_after_an_imported_lora_of_two_subjects_one_is_taught_as_long_as_ever(run: Run, project: Path) -> None:
    name = imported(run, project, "ohwx", "hamster", "--token", "rtq", "--class", "teapot")
    layout, request = Layout(project), partial(TrainRequest, subjects=["cat"], method="lora", rehearse=False)
    plans = [plan_training(layout, request(start_from=one)) for one in (None, name)]
    assert plans[0].profile.train.steps == plans[1].profile.train.steps


def test_an_imported_lora_of_ones_own_subject_is_taught_on_from_its_photos(run: Run, project: Path) -> None:
    name = imported(run, project, "sks", "dog")
    done = run("train", "--from", name, *BARE, *FAST)
    assert done.code == 0, done.err
    assert [(one["name"], one["learnt_in"]) for one in done.document["subjects"]] == [("dog", None)]
    assert len(done.document["subjects"][0]["photo_hashes"]) == 2


def damage(project: Path) -> None:
    file = next((project / "runs" / FULL / "weights" / "unet").glob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:-1] + b"\1")


def unfinish(project: Path) -> None:
    (project / "runs" / FULL / "run.json").write_text(json.dumps(record_of(project, FULL) | {"state": "interrupted"}))


def swap_base(project: Path) -> None:
    record = record_of(project, FULL)
    record["base"]["hash"] = "0" * 64
    (project / "runs" / FULL / "run.json").write_text(json.dumps(record))


@pytest.mark.parametrize(
    ("spoil", "words", "code", "said"),
    [
        (damage, [], 6, "unet/diffusion_pytorch_model.safetensors"),
        (unfinish, [], 4, "--resume 0001-dog"),
        (swap_base, [], 6, "another base"),
        (None, ["--method", "lora"], 2, "0001-dog is full"),
        (None, ["--profile", "lora"], 2, "0001-dog is full"),
        (None, ["--resume", "1"], 2, "--from"),
        (None, ["--token", "sks"], 6, "sks"),
    ],
    ids=["damaged", "unfinished", "another base", "another method", "another profile", "and resume", "its own word"],
)
def test_what_cannot_be_gone_on_from_is_said_and_nothing_is_made(
    run: Run, project: Path, spoil: Callable[[Path], None] | None, words: list[str], code: int, said: str
) -> None:
    if spoil is not None:
        spoil(project)
    ended = run("train", "--from", 1, "--subject", "cat", *words, "--dry-run")
    assert ended.code == code, ended.err
    assert said in ended.err
    assert not (project / "runs" / "0003-cat").exists()


def test_the_shape_of_an_adapter_cannot_be_changed_on_the_way(run: Run, project: Path) -> None:
    ended = run("train", "--from", 2, "--subject", "cat", "--set=lora.rank=8")
    assert (ended.code, "lora.rank is 4" in ended.err) == (2, True)
    done = run("train", "--from", 2, "--subject", "cat", "--profile", "tiny-lora", "--dry-run", "--json")
    assert done.document["settings"]["lora"]["rank"] == 4  # the profile says 16
    assert done.document["from"] == LORA and done.document["earlier"] == {"dog": True}


def test_no_rehearsal_alone_means_nothing(run: Run, project: Path) -> None:
    assert run("train", "--subject", "dog", "--no-rehearsal").code == 2


@pytest.mark.parametrize("change", ["gone", "changed"])
def test_a_run_is_not_resumed_on_other_weights_than_it_began_with(run: Run, project: Path, change: str) -> None:
    assert run("train", "--from", 1, "--subject", "cat", *FAST).code == 0
    child = project / "runs" / "0003-cat"
    (child / "run.json").write_text(json.dumps(record_of(project, "0003-cat") | {"state": "interrupted"}))
    parent = project / "runs" / FULL
    kept = run("runs", "rm", 1, "--yes")
    assert (kept.code, "0003-cat" in kept.err, parent.is_dir()) == (6, True, True)
    shutil.rmtree(parent)
    if change == "changed":
        command("-C", project, "train", "--subject", "dog", *BARE, *FAST, "--seed", 5, "--quiet")
        shutil.move(project / "runs" / "0004-dog", parent)
        (parent / "run.json").write_text(json.dumps(record_of(project, FULL) | {"name": FULL}))
    ended = run("train", "--resume", 3)
    assert ended.code == (4 if change == "gone" else 6)
    assert FULL in ended.err


def test_a_refused_word_is_not_given_to_the_subject_either(run: Run, project: Path) -> None:
    before = (project / "subjects" / "dog" / "subject.yaml").read_text()
    ended = run("train", "--from", 1, "--subject", "dog", "--token", "ohwx", "--dry-run")
    assert (ended.code, "learnt 'dog' as 'sks dog'" in ended.err) == (6, True)
    assert (project / "subjects" / "dog" / "subject.yaml").read_text() == before


def test_a_subject_that_was_renamed_since_is_rehearsed_or_taught_on_under_its_new_name(run: Run, project: Path) -> None:
    assert run("subjects", "rename", "dog", "rex").code == 0
    done = run("train", "--from", 1, "--subject", "cat", *BARE, *FAST)
    assert done.code == 0, done.err
    assert [(one["name"], one["identifier"]) for one in done.document["subjects"]] == [("cat", "zwx"), ("rex", "sks")]
    plan = run("train", "--from", 1, "--subject", "rex", "--dry-run", "--json").document
    assert (plan["subjects"], plan["earlier"]) == (["rex"], {})


def test_prodigys_rate_of_one_is_not_carried_to_another_optimiser(run: Run, project: Path) -> None:
    own = ["--set=train.optimizer=prodigy", "--set=train.learning_rate=1", *BARE]
    assert run("train", "--from", 1, "--steps", 1, *own, "--quiet").code == 0
    done = run("train", "--from", 3, "--steps", 1, "--set=train.optimizer=adamw")
    assert done.code == 2 and "train.learning_rate would stay 1, which the run 0003-dog has for prodigy" in done.err
    assert not (project / "runs" / "0004-dog").exists()


def test_a_layer_of_the_text_encoder_that_is_not_there_is_named_before_a_run_is_made(run: Run, project: Path) -> None:
    assert run("train", "--subject", "dog", "--method", "lora", "--steps", 1, *BARE, "--quiet").code == 0
    asked = ["--set=train.text_encoder=true", "--set=lora.text_targets=[bogus]"]
    done = run("train", "--from", 3, "--steps", 1, *asked)
    assert (done.code, "lora.text_targets: bogus is no layer of this text encoder" in done.err) == (2, True)
    assert not (project / "runs" / "0004-dog").exists()


def test_a_dora_that_can_only_be_drawn_with_is_refused_before_a_run_is_made(
    run: Run, project: Path, tmp_path: Path
) -> None:
    tensors = load_file(project / "runs" / LORA / "weights" / "pytorch_lora_weights.safetensors")
    halves = {name.removesuffix(".lora_A.weight"): tensor for name, tensor in tensors.items() if "lora_A" in name}
    # A length for each input, as LyCORIS can keep them.
    lengths = {f"{name}.dora_scale": torch.ones(1, tensor.shape[1]) for name, tensor in halves.items()}
    save_file(tensors | lengths, tmp_path / "inputs.safetensors")
    done = run("import-lora", tmp_path / "inputs.safetensors", "--token", "sks", "--class", "dog", "--json")
    assert done.code == 0, done.err
    ended = run("train", "--from", done.document["name"], *BARE, "--steps", 1)
    assert (ended.code, "can be drawn with, and not be trained further" in ended.err) == (6, True)
    assert not list((project / "runs").glob("0004-*"))


@pytest.mark.parametrize("step", [1, 3], ids=["of another step", "of another run"])
def test_a_checkpoint_that_lies_in_the_wrong_place_is_never_gone_on_from(run: Run, project: Path, step: int) -> None:
    words = ["train", "--from", LORA, *BARE, *FAST]
    assert run(*words).code == 0 and run("train", "--subject", "dog", "--method", "lora", *BARE, *FAST).code == 0
    own, other = (project / "runs" / name / "checkpoints" for name in ("0003-dog", "0004-dog"))
    whole = weights(project, "0003-dog")
    shutil.rmtree(project / "runs" / "0003-dog" / "weights")
    for folder in (own / "step-000004", own / "step-000003"):
        shutil.rmtree(folder)
    shutil.copytree((own if step == 1 else other) / f"step-{step:06d}", own / "step-000003")
    record = record_of(project, "0003-dog") | {"state": "interrupted", "finished": None}
    (project / "runs" / "0003-dog" / "run.json").write_text(json.dumps(record))
    done = run("train", "--resume", 3)
    if step == 3:
        assert (done.code, "step-000003/weights.safetensors is of another run" in done.err) == (6, True), done.err
        shutil.rmtree(own / "step-000003")
        done = run("train", "--resume", 3)
    else:
        assert "step-000003 is the checkpoint of step 1; an earlier checkpoint is used" in done.err
    assert done.code == 0, done.err
    assert same(weights(project, "0003-dog"), whole)


KINDS = {
    "LoKr": ["--method=lora", "--set=lora.kind=lokr", "--set=lora.factor=2", "--set=lora.rank=1", "--set=lora.alpha=1"],
    "LoHa": ["--method=lora", "--set=lora.kind=loha"],
    "PiSSA": ["--method=lora", "--set=lora.init=pissa"],
    "DoRA": ["--method=lora", "--set=lora.dora=true"],
    "Prodigy": ["--method=lora", "--set=train.optimizer=prodigy", "--set=train.learning_rate=1"],
    "schedule-free": ["--method=full", "--set=train.optimizer=schedulefree"],
    "Muon": ["--method=full", "--set=train.optimizer=muon"],
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_gone_on_from_and_resumed_on_the_way(run: Run, project: Path, kind: str) -> None:
    parent = run("train", "--subject", "dog", *KINDS[kind], *BARE, *FAST).document["name"]
    # At a rate of 0 the weights stay what they are; Prodigy has a rate of its own.
    still = ["--set=train.optimizer=adamw", "--set=train.learning_rate=0"]
    first = run("train", "--from", parent, "--subject", "cat", *still, *BARE, *FAST).document["name"]
    assert same(weights(project, first), weights(project, parent))

    name = run("train", "--from", parent, "--subject", "cat", *BARE, *FAST).document["name"]
    settings, before = record_of(project, name)["profile"], record_of(project, parent)["profile"]
    assert (settings["lora"], settings["train"]["optimizer"]) == (before["lora"], before["train"]["optimizer"])
    folder, whole = project / "runs" / name, weights(project, name)
    assert not same(whole, weights(project, parent))
    shutil.rmtree(folder / "weights")
    for step in (3, 4):
        shutil.rmtree(folder / "checkpoints" / f"step-{step:06d}")
    (folder / "run.json").write_text(json.dumps(record_of(project, name) | {"state": "running"}))
    resumed = run("train", "--resume", name)
    assert resumed.code == 0, resumed.err
    assert same(weights(project, name), whole)
