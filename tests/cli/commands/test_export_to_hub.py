"""`export --to hub`, on a hub that is played by an object."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard

from dbcli.diffusion import hub_upload
from dbcli.project.images.recipes import read_recipe
from tests.cli.made_projects import command, trained_project

Run = Callable[..., Any]


class FakeHub:
    """What is asked of HfApi, written down; `files` are those of the folder when it was uploaded."""

    def __init__(self, *, existing: bool | None = None, fault: Exception | None = None, delay: float = 0) -> None:
        self.existing, self.fault, self.delay = existing, fault, delay
        self.created: dict[str, Any] = {}
        self.files: dict[str, bytes] = {}

    def whoami(self) -> dict[str, str]:
        time.sleep(self.delay)
        if self.fault is not None:
            raise self.fault
        return {"name": "ann"}

    def repo_exists(self, repo_id: str) -> bool:
        return self.existing is not None

    def model_info(self, repo_id: str) -> SimpleNamespace:
        return SimpleNamespace(private=not self.existing)

    def create_repo(self, repo_id: str, **settings: Any) -> str:
        self.created = {"repo_id": repo_id, **settings}
        return f"https://hub.test/{repo_id}"

    def upload_folder(self, *, repo_id: str, folder_path: Path, commit_message: str) -> None:
        folder = Path(folder_path)
        self.files = {
            path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
        }


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA run and a full run with pictures, a grid that shows the photos, and one evaluation.

    Beside its own pictures the LoRA run has some of other weights: its own halved, and of a checkpoint.
    """
    kept = ("--set=train.checkpoint_every=1", "--set=train.keep_checkpoints=2")
    project = trained_project(tmp_path_factory.mktemp("hub"), "--method", "lora", *kept)
    command("-C", project, "train", "--subject", "dog", "--steps", 1, "--set=prior.enabled=false", "--quiet")
    command(
        "-C", project, "generate", "a {dog} | <b>", "a {dog} by the sea", "--run", 1, "-n", 4, "--steps", 1, "--grid"
    )
    for prompt, *others in (("half a {dog}", "--weights", 0.5), ("an early {dog}", "--checkpoint", 1)):
        command("-C", project, "generate", prompt, "--run", 1, *others, "-n", 1, "--steps", 1)
    scores = {
        "suite": "quick",
        "overall": {"dino": {"value": 0.71, "low": 0.69, "high": 0.73}, "clip_t": None},
        "real": {"dino": 0.77},
        "protocol": {"judges": {"dino": {"judge": "tiny-dino"}}},
    }
    other = scores | {"overall": {"dino": {"value": 0.31, "low": 0.3, "high": 0.32}}}
    masked = other | {"protocol": other["protocol"] | {"masked": "both"}}
    kept = other | {"protocol": other["protocol"] | {"identifier_removed_from_scoring_text": False}}
    folder = project / "runs" / "0001-dog" / "eval"
    # Of the result; of weights that are not uploaded; with backgrounds blanked; by texts with the identifier.
    apart = (("quick-step-1", other | {"checkpoint": 1}), ("quick-masked", masked), ("quick-with-identifier", kept))
    for name, found in (("quick", scores), *apart):
        (folder / name).mkdir(parents=True)
        (folder / name / "scores.json").write_text(json.dumps(found))
    return project


@pytest.fixture
def project(made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(made)
    return made


def played_by(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    monkeypatch.setattr(hub_upload, "make_api", lambda: hub)
    return hub


def test_a_lora_is_published_with_its_card_and_without_photos(
    run: Run, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = played_by(FakeHub(), monkeypatch)
    done = run("export", 1, "--to", "hub", "--repo", "my-dog", "--yes", "--json")
    assert done.code == 0, done.err
    assert (done.document["url"], done.document["private"]) == ("https://hub.test/ann/my-dog", True)
    assert hub.created == {"repo_id": "ann/my-dog", "private": True, "exist_ok": True, "repo_type": "model"}
    images = sorted(name for name in hub.files if name.startswith("images/"))
    assert len(images) == 6
    assert sorted(hub.files) == ["README.md", *images, "pytorch_lora_weights.safetensors"]
    assert {one["path"] for one in done.document["files"]} == set(hub.files)
    photos = {hashlib.sha256(path.read_bytes()).hexdigest() for path in project.glob("subjects/dog/**/*.png")}
    grids = {hashlib.sha256(path.read_bytes()).hexdigest() for path in project.glob("runs/*/images/grid-*.png")}
    assert photos and grids
    assert not (photos | grids) & {hashlib.sha256(content).hexdigest() for content in hub.files.values()}
    assert not list((project / "exports").iterdir())


def test_images_of_other_weights_than_those_that_are_uploaded_stay_here(
    run: Run, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = played_by(FakeHub(), monkeypatch)
    drawn = [read_recipe(path).prompt for path in (project / "runs" / "0001-dog" / "images").glob("*-000?.png")]
    assert {"half a sks dog", "an early sks dog"} <= set(drawn)
    assert run("export", 1, "--to", "hub", "--repo", "my-dog", "--yes").code == 0
    card = hub.files["README.md"].decode()
    assert "a sks dog by the sea" in card
    assert "half a" not in card and "an early" not in card


def test_the_card_tells_machines_and_people(run: Run, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = played_by(FakeHub(), monkeypatch)
    assert run("export", 1, "--to", "hub", "--repo", "bob/my-dog", "--yes", "--licence", "cc-by-4.0").code == 0
    text = hub.files["README.md"].decode()
    front = yaml.safe_load(text.split("---")[1])
    assert front["license"] == "cc-by-4.0"
    assert front["library_name"] == "diffusers"
    assert front["instance_prompt"] == "a photo of a sks dog"
    assert {"dreambooth", "text-to-image", "lora"} <= set(front["tags"])
    # The small base is a folder of this machine: no hub id, and its path stays here.
    assert "base_model" not in front
    assert str(project.parent) not in text
    assert {one["text"] for one in front["widget"]} == {"a sks dog | <b>", "a sks dog by the sea"}
    assert all(one["output"]["url"] in hub.files for one in front["widget"])
    assert ModelCard(text).data.license == "cc-by-4.0"
    assert r"a sks dog \| \<b\>" in text
    assert "| quick | DINO | tiny-dino | 0.710 | 0.690 to 0.730 | 0.770 | higher |" in text
    assert text.count("| quick |") == 1
    assert 'pipeline.load_lora_weights("bob/my-dog")' in text


def test_a_whole_model_is_published_as_a_diffusers_folder(
    run: Run, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = played_by(FakeHub(), monkeypatch)
    done = run("export", 2, "--to", "hub", "--repo", "my-dog", "--public", "--yes")
    assert done.code == 0, done.err
    assert hub.created["private"] is False
    assert {"model_index.json", "README.md", "tokenizer/vocab.json"} <= set(hub.files)
    assert 'from_pretrained("ann/my-dog")' in hub.files["README.md"].decode()
    assert "no images yet" in done.err
    assert "everybody (public)" in done.err


def test_without_anybody_to_agree_the_list_is_shown_and_nothing_is_sent(
    run: Run, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = played_by(FakeHub(), monkeypatch)
    ended = run("export", 1, "--to", "hub", "--repo", "my-dog")
    assert ended.code == 6
    assert "pytorch_lora_weights.safetensors" in ended.err and "README.md" in ended.err
    assert "instance prompt: a photo of a sks dog" in ended.err
    assert not hub.created and not hub.files


def test_a_repository_that_is_public_already_needs_the_word(
    run: Run, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = played_by(FakeHub(existing=True), monkeypatch)
    ended = run("export", 1, "--to", "hub", "--repo", "my-dog", "--yes")
    assert ended.code == 6
    assert "--public" in ended.err
    assert not hub.files


@pytest.mark.parametrize(
    ("hub", "words"),
    [
        (FakeHub(fault=ConnectionError("no way")), ()),
        (FakeHub(delay=60), ()),
        (FakeHub(), ("--offline",)),
    ],
)
def test_a_hub_out_of_reach_is_exit_4_in_seconds(
    run: Run, project: Path, monkeypatch: pytest.MonkeyPatch, hub: FakeHub, words: tuple[str, ...]
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    played_by(hub, monkeypatch)
    began = time.monotonic()
    assert run("export", 1, "--to", "hub", "--repo", "my-dog", "--yes", *words).code == 4
    assert time.monotonic() - began < 60
    assert not hub.files


@pytest.mark.parametrize("words", [("--repo", "my-dog"), ("--public",)])
@pytest.mark.parametrize("target", ["lora", "comfyui"])
def test_what_only_the_hub_has_a_use_for_is_refused_with_other_targets(
    run: Run, project: Path, tmp_path: Path, target: str, words: tuple[str, ...]
) -> None:
    ended = run("export", 1, "--to", target, *words, "--out", tmp_path / "out")
    assert ended.code == 2
    assert f"{words[0]} goes with --to hub" in ended.err
    assert f"dreambooth export 1 --to hub {' '.join(words)}" in ended.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["../x", "a/b/c", "", "-x", "x-", "x.", "x.git", "a--b", "a..b"])
def test_a_name_that_cannot_be_a_repository_is_exit_2(run: Run, project: Path, name: str) -> None:
    assert run("export", 1, "--to", "hub", f"--repo={name}", "--yes").code == 2
