"""What is told before a run is made, and what fails beside its steps without ending it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from tests.cli.made_projects import command, trained_project
from tests.project import photo_makers

Run = Callable[..., Any]
FAST = ["--steps", 4, "--set=prior.enabled=false", "--set=draw.steps=1"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    project = trained_project(folder)
    photos = [photo_makers.save(folder / f"cat{n}.png", photo_makers.plain((90, 20 + 90 * n, 200))) for n in range(2)]
    command("-C", project, "add-subject", "cat", "--class", "cat", "--token", "zwx", *photos, "--quiet")
    return project


@pytest.fixture
def project(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    copy = Path(shutil.copytree(made, tmp_path / "p"))
    monkeypatch.chdir(copy)
    return copy


def weights_of(project: Path, run: str) -> dict[str, bytes]:
    folder = project / "runs" / run / "weights"
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.safetensors")}


def runs_of(project: Path) -> list[str]:
    return sorted(path.name for path in (project / "runs").iterdir() if path.is_dir())


@pytest.mark.parametrize("dry", [True, False])
@pytest.mark.parametrize(
    ("setting", "code", "said"),
    [
        ("train.preview_prompt=a {cat} in the snow", 3, "train.preview_prompt, 'a {cat} in the snow'"),
        ("draw.negative=a {blurry} one", 3, "draw.negative, 'a {blurry} one'"),
        ("lora.targets=[to_q,conv9]", 2, "lora.targets: conv9 is no layer of this UNet"),
    ],
)
def test_a_setting_that_would_end_the_run_later_is_refused_before_it_is_made(
    run: Run, project: Path, setting: str, code: int, said: str, dry: bool
) -> None:
    how = ["--method", "lora", "--set=train.preview_every=2", "--set", setting, *(["--dry-run"] if dry else [])]
    ended = run("train", "--subject", "dog", *FAST, *how)
    assert ended.code == code
    assert said in ended.err
    assert runs_of(project) == ["0001-dog"]


def test_a_device_that_is_not_there_is_told_before_a_run_is_made(run: Run, project: Path) -> None:
    ended = run("train", "--subject", "dog", *FAST, "--set=train.device=cuda:7")
    assert (ended.code, "train.device is cuda:7, but this machine has none" in ended.err) == (2, True)
    assert runs_of(project) == ["0001-dog"]


def test_a_dry_run_refuses_more_gpus_than_there_are(run: Run, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    planned = ("train", "--subject", "dog", *FAST, "--gpus", 2, "--dry-run")
    ended = run(*planned)
    assert (ended.code, "2 GPUs were requested; this machine has none" in ended.err) == (2, True)
    assert run(*planned, "--set=train.device=cpu").code == 0
    fused = ("--set=train.fused_backward=true", "--set=train.gradient_clip=0")
    assert "train.fused_backward" in run(*planned, "--set=train.device=cpu", *fused).err


def test_a_caption_that_names_nobody_is_told_when_it_comes_and_refused_by_name(run: Run, project: Path) -> None:
    folder = project.parent / "wolf"
    photo_makers.save(folder / "a.png", photo_makers.plain((10, 20, 30)))
    (folder / "a.txt").write_text("a {wlof} on a hill")
    added = run("add-subject", "wolf", "--class", "wolf", "--token", "qvx", folder)
    assert added.code == 0, added.err
    told = " ".join(added.err.split())
    assert "a.png" in told and "{wlof}" in told and "subjects/wolf/photos/0001.txt" in told
    ended = run("train", "--subject", "wolf", *FAST)
    assert ended.code == 3
    assert (
        "the caption of 0001.png of wolf, in subjects/wolf/subject.yaml" in ended.err
        and "a {wlof} on a hill" in ended.err
    )
    assert runs_of(project) == ["0001-dog"]
    (project / "subjects" / "wolf" / "photos" / "0001.txt").write_text("a {wolf} on a hill")
    assert run("train", "--subject", "wolf", *FAST).code == 0


def test_a_preview_may_show_all_subjects_of_its_run(run: Run, project: Path) -> None:
    words = ["--subject", "dog", "--subject", "cat", "--set=train.preview_every=4"]
    done = run("train", *words, *FAST, "--set", "train.preview_prompt=a {dog} beside a {cat}")
    assert done.code == 0, done.err
    assert len(list((project / "runs" / "0002-dog-cat" / "previews").glob("*.png"))) == 2


def test_a_preview_that_fails_is_a_warning_and_changes_no_weight(
    run: Run, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("dbcli.workflows.images.generated.save_png", fail)
    for every in (0, 2):
        done = run("train", "--subject", "dog", *FAST, f"--set=train.preview_every={every}")
        assert done.code == 0, done.err
    told = " ".join(done.err.split())
    assert "The preview of step 2 failed" in told and "No space left" in told
    assert weights_of(project, "0002-dog") == weights_of(project, "0003-dog")


@pytest.mark.parametrize("targets", ["[all-linear]", "[to_q, conv1]"])
def test_adapters_go_where_they_were_asked_for(run: Run, project: Path, targets: str) -> None:
    how = ["--method", "lora", f"--set=lora.targets={targets}"]
    done = run("train", "--subject", "dog", *FAST, *how, "--json")
    assert done.code == 0, done.err
    layers = load_file(project / "runs" / "0002-dog" / "weights" / "pytorch_lora_weights.safetensors")
    kinds = {name.rsplit(".lora", 1)[0].rsplit(".", 1)[-1] for name in layers}
    assert ({"to_q", "conv1"} == kinds) if "conv1" in targets else {"to_q", "time_emb_proj", "linear_1"} <= kinds


def test_two_subjects_get_as_many_steps_each_as_one_unless_the_steps_are_typed(run: Run, project: Path) -> None:
    words = ["train", "--subject", "dog", "--subject", "cat", "--set=prior.enabled=false", "--dry-run"]
    both = run(*words, "--json")
    assert both.document["settings"]["train"]["steps"] == 2 * 800
    assert run(*words, "--steps", 50, "--json").document["settings"]["train"]["steps"] == 50
    assert run(*words, "--set=train.steps=60", "--json").document["settings"]["train"]["steps"] == 60
    assert "2 subjects share 1600 steps, about 800 each" in run(*words).err
    (project / "dreambooth.yaml").open("a").write("overrides:\n  train:\n    steps: 70\n")
    assert run(*words, "--json").document["settings"]["train"]["steps"] == 70


def test_a_dry_run_says_first_what_decides_and_lists_the_rest_on_request(run: Run, project: Path) -> None:
    words = ["train", "--subject", "dog", "--steps", 40, "--set=train.warmup_steps=50", "--dry-run"]
    short, long = run(*words), run(*words, "--all-settings")
    lines = short.out.splitlines()
    assert "40 steps" in lines[0]
    assert any("peak memory" in line for line in lines[:4])
    assert len(lines) < 14
    assert "train.warmup_steps" in short.out and "train.seed" not in short.out
    assert "train.seed" in long.out
    assert ", never " in short.err


def test_a_finished_run_keeps_weights_to_draw_with_and_no_optimiser(run: Run, project: Path) -> None:
    how = ["--set=train.checkpoint_every=1", "--set=train.keep_checkpoints=3"]
    done = run("train", "--subject", "dog", *FAST, *how)
    assert done.code == 0, done.err
    folder = project / "runs" / "0002-dog" / "checkpoints"
    assert sorted(path.name for path in folder.iterdir()) == ["step-000002", "step-000003"]
    assert not list(folder.rglob("optimiser.safetensors"))
    assert "the weights of step 2, 3" in done.err
    words = ["generate", "a {dog}", "-n", 1, "--run", 2, "--json"]
    assert run(*words, "--checkpoint", 3).code == 0
    drawn = [run(*words, "--out", "a"), run(*words, "--out", "b", "--checkpoint", 4)]
    one, other = (Path(done.document["images"][0]["path"]).read_bytes()[-2000:] for done in drawn)
    assert one == other
    missing = run(*words, "--checkpoint", 1)
    assert missing.code == 4
    assert "available: 2, 3, 4" in missing.err


def test_text_targets_of_an_adapter_that_is_gone_on_from_cannot_change(run: Run, project: Path) -> None:
    lora = ["--method", "lora", "--set=train.text_encoder=true"]
    assert run("train", "--subject", "dog", *FAST, *lora).code == 0
    ended = run("train", "--from", 2, *FAST, "--set=lora.text_targets=[fc1]")
    assert ended.code == 2
    assert "lora.text_targets" in ended.err
    assert json.loads((project / "runs" / "0002-dog" / "run.json").read_text())["state"] == "finished"
