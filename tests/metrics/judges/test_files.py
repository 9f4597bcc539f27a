"""Where judges are looked for, and what is said when they are not there."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest

from dbcli.errors import JudgeMissing
from dbcli.metrics.judges import embedded
from dbcli.metrics.judges import files as judge_files
from dbcli.metrics.judges.files import locate
from dbcli.metrics.judges.loading import HUB_SOURCES
from dbcli.project.settings.project_settings import JUDGE_NAMES


@pytest.fixture
def empty_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(*_: object, **settings: object) -> str:
        assert settings.get("local_files_only"), "no download is expected in a test"
        raise FileNotFoundError("not in the cache")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", nothing)


def test_a_file_is_taken_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "dino.pth").write_bytes(b"x")
    found = locate("dino", str(tmp_path / "dino.pth"), offline=True)
    assert (found.weights.name, found.folder, found.revision) == ("dino.pth", None, None)


def test_a_folder_gives_its_best_weights(tmp_path: Path) -> None:
    for name in ("pytorch_model.bin", "model.safetensors", "other.safetensors"):
        (tmp_path / name).write_bytes(b"x")
    assert locate("dino", str(tmp_path), offline=True).weights.name == "model.safetensors"


def test_a_folder_without_weights_is_named(tmp_path: Path) -> None:
    with pytest.raises(JudgeMissing, match="contains no weights"):
        locate("dino", str(tmp_path), offline=True)


def test_a_path_that_is_not_there_is_no_hub_id(tmp_path: Path) -> None:
    with pytest.raises(JudgeMissing, match="no file or folder") as caught:
        locate("clip", str(tmp_path / "nowhere"), offline=False)
    assert caught.value.exit_code == 4


def test_offline_says_the_ways_out(empty_cache: None) -> None:
    with pytest.raises(JudgeMissing, match="--offline forbids") as caught:
        locate("clip", "timm/vit_base_patch32_clip_224.openai", offline=True)
    assert caught.value.exit_code == 4
    hint = caught.value.hint or ""
    assert "--judge tiny" in hint and "judges:" in hint and "dreambooth.yaml" in hint


def test_a_hub_that_never_answers_is_given_up(empty_cache: None, monkeypatch: pytest.MonkeyPatch) -> None:
    never = threading.Event()
    silent = SimpleNamespace(model_info=lambda *_, **__: never.wait())
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: silent)
    monkeypatch.setattr(judge_files, "HUB_DEADLINE_SECONDS", 0.05)
    began = time.monotonic()
    with pytest.raises(JudgeMissing, match="no answer within 0.05 s"):
        locate("dino", "timm/vit_small_patch16_224.dino", offline=False)
    assert time.monotonic() - began < 60
    never.set()


def test_the_real_deadline_is_under_ten_seconds() -> None:
    assert judge_files.HUB_DEADLINE_SECONDS < 10


def test_a_hub_that_refuses_is_said_in_its_words(empty_cache: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ConnectionError("Name or service not known\nand much more")

    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: SimpleNamespace(model_info=refuse))
    with pytest.raises(JudgeMissing, match="Name or service not known$"):
        locate("dino", "timm/vit_small_patch16_224.dino", offline=False)


def test_the_hub_is_asked_for_one_revision_and_the_best_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: dict[str, object] = {}

    def download(_: str, *, revision: str | None, allow_patterns: list[str] | None = None, **settings: object) -> str:
        if settings.get("local_files_only"):
            raise FileNotFoundError
        asked.update(revision=revision, allow_patterns=allow_patterns)
        (tmp_path / "model.safetensors").write_bytes(b"x")
        return str(tmp_path)

    names = ("pytorch_model.bin", "model.safetensors", "README.md")
    files = [SimpleNamespace(rfilename=name, size=None) for name in names]
    api = SimpleNamespace(model_info=lambda *_, **__: SimpleNamespace(sha="a" * 40, siblings=files))
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: api)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    found = locate("dino", "timm/vit_small_patch16_224.dino@main", offline=False)
    assert found.revision == asked["revision"] == "a" * 40
    assert asked["allow_patterns"] == ["model.safetensors", "*.json", "*.txt", "*.jinja"]


def test_what_is_downloaded_and_its_size_are_told_first(
    empty_cache: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    told: list[tuple[str, int | None]] = []

    def download(_: str, *, allow_patterns: list[str] | None = None, **settings: object) -> str:
        if settings.get("local_files_only"):
            raise FileNotFoundError
        assert told == [(f"owner/chat@{'a' * 40}", 30)]
        assert allow_patterns is not None and allow_patterns[0] == "model-*.safetensors"
        return str(tmp_path)

    sizes = {"model-1-of-2.safetensors": 10, "model-2-of-2.safetensors": 20, "model.safetensors.index.json": 5}
    files = [SimpleNamespace(rfilename=name, size=size) for name, size in sizes.items()]
    api = SimpleNamespace(model_info=lambda *_, **__: SimpleNamespace(sha="a" * 40, siblings=files))
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: api)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    found = locate(
        "caption", "owner/chat", offline=False, shards=True, on_download=lambda what, size: told.append((what, size))
    )
    assert (found.weights.name, len(told)) == ("model.safetensors.index.json", 1)


def test_what_was_fetched_before_needs_no_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    snapshot = tmp_path / ("b" * 40)
    snapshot.mkdir()
    (snapshot / "model.safetensors").write_bytes(b"x")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(snapshot))
    found = locate("dino", "timm/vit_small_patch16_224.dino", offline=True)
    assert (found.weights.parent, found.revision) == (snapshot, "b" * 40)


def test_every_judge_can_be_named_in_the_settings() -> None:
    looking = {"face", "mask", "caption"}
    assert set(JUDGE_NAMES) == {*HUB_SOURCES, *embedded.KINDS, *looking}
