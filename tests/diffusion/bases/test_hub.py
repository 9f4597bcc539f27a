"""The hub: which files are wanted, and what a person hears when it cannot be reached. No network here."""

from __future__ import annotations

import json
import shutil
import socket
import threading
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from dbcli.diffusion.bases import hub, stored_layers
from dbcli.diffusion.bases.base import KNOWN_BASES, judge_base, load_base, resolve_base
from dbcli.diffusion.estimate import meta_base
from dbcli.diffusion.formats.diffusers_folder import write_base
from dbcli.errors import BaseMissing, Unreachable, UnsupportedFile
from tests.diffusion import tiny_models

COMMIT = "0123456789abcdef0123456789abcdef01234567"

# The file list of stable-diffusion-v1-5 on the hub, shortened to what matters.
V1_5_FILES = [
    ".gitattributes",
    "README.md",
    "feature_extractor/preprocessor_config.json",
    "model_index.json",
    "safety_checker/config.json",
    "safety_checker/model.safetensors",
    "safety_checker/pytorch_model.bin",
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    "text_encoder/model.fp16.safetensors",
    "text_encoder/model.safetensors",
    "text_encoder/pytorch_model.bin",
    "tokenizer/merges.txt",
    "tokenizer/special_tokens_map.json",
    "tokenizer/tokenizer_config.json",
    "tokenizer/vocab.json",
    "unet/config.json",
    "unet/diffusion_pytorch_model.bin",
    "unet/diffusion_pytorch_model.fp16.safetensors",
    "unet/diffusion_pytorch_model.non_ema.safetensors",
    "unet/diffusion_pytorch_model.safetensors",
    "v1-5-pruned-emaonly.safetensors",
    "v1-5-pruned.ckpt",
    "v1-inference.yaml",
    "vae/config.json",
    "vae/diffusion_pytorch_model.bin",
    "vae/diffusion_pytorch_model.safetensors",
]


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


def test_only_configurations_and_one_weights_file_each_are_fetched() -> None:
    wanted = hub.wanted_files(V1_5_FILES)
    assert [name for name in wanted if name.endswith((".safetensors", ".bin", ".ckpt"))] == [
        "text_encoder/model.safetensors",
        "unet/diffusion_pytorch_model.safetensors",
        "vae/diffusion_pytorch_model.safetensors",
    ]
    assert {"tokenizer/vocab.json", "tokenizer/merges.txt", "scheduler/scheduler_config.json"} <= set(wanted)
    assert not any("safety_checker" in name for name in wanted)


def test_of_xl_both_text_encoders_and_both_tokenizers_are_fetched() -> None:
    present = [name for name in V1_5_FILES if not name.startswith("safety_checker")]
    second = [
        name.replace("text_encoder/", "text_encoder_2/").replace("tokenizer/", "tokenizer_2/") for name in present
    ]
    wanted = hub.wanted_files([*present, *second, "vae_1_0/config.json"])
    assert {"text_encoder_2/config.json", "text_encoder_2/model.safetensors", "tokenizer_2/vocab.json"} <= set(wanted)
    assert "vae_1_0/config.json" not in wanted
    assert sum(name.endswith(".safetensors") for name in wanted) == 4


def test_a_copy_of_xl_in_the_cache_without_its_second_tokenizer_is_not_complete(tmp_path, monkeypatch) -> None:
    store = tmp_path / "hub" / "models--someone--xl"
    (store / "refs").mkdir(parents=True)
    (store / "refs" / "main").write_text(COMMIT)
    write_base(store / "snapshots" / COMMIT, tiny_models.model("sdxl"))
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *a, **k: pytest.fail("asked the hub"))
    assert list(load_base("someone/xl", offline=True).tokenizers) == ["text_encoder", "text_encoder_2"]
    for file in (store / "snapshots" / COMMIT / "tokenizer_2").iterdir():
        file.unlink()
    with pytest.raises(Unreachable, match=r"lacks tokenizer_2/vocab\.json"):
        load_base("someone/xl", offline=True)


HALF, WHOLE = "unet/diffusion_pytorch_model.fp16.safetensors", "unet/diffusion_pytorch_model.safetensors"


def test_the_short_name_of_xl_means_the_files_in_half_precision_and_its_hub_id_the_plain_ones() -> None:
    short, full = resolve_base("sdxl"), resolve_base("stabilityai/stable-diffusion-xl-base-1.0", COMMIT)
    assert (short.source, short.variant, full.variant) == (full.source, "fp16", "")
    files = [HALF, WHOLE, "unet/diffusion_pytorch_model.fp16.bin", "vae/diffusion_pytorch_model.safetensors"]
    # A network without such files is taken as it is.
    assert hub.wanted_files(files, short.variant) == [HALF, files[-1]]
    assert hub.wanted_files(files, full.variant) == [WHOLE, files[-1]]
    assert resolve_base("sd-v1-4").variant == ""
    # Somebody else's repository of that name is no base of ours.
    assert (resolve_base("someone/sdxl", COMMIT).variant, resolve_base("someone/sdxl", COMMIT).is_known) == ("", False)


def xl_in_the_cache(tmp_path: Path) -> Path:
    """A small model of XL in place of the real one, every network in float32 and in float16."""
    repository, commit = KNOWN_BASES["sdxl"]
    folder = tmp_path / "hub" / f"models--{repository.replace('/', '--')}" / "snapshots" / commit
    write_base(folder, tiny_models.model("sdxl"), dtype=torch.float32)
    for file in list(folder.rglob("*.safetensors")):
        halves = {name: tensor.half() for name, tensor in load_file(file).items()}
        save_file(halves, file.with_name(f"{file.stem}.fp16.safetensors"))
    return folder


def test_of_both_in_the_cache_each_name_takes_its_own_and_either_alone_is_complete(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *a, **k: pytest.fail("asked the hub"))
    folder, (repository, commit) = xl_in_the_cache(tmp_path), KNOWN_BASES["sdxl"]
    short, full = load_base("sdxl"), load_base(repository, commit)
    assert short.hash != full.hash and not short.notes and not full.notes
    weight, rounded = (one.unet.conv_in.weight for one in (full, short))
    assert torch.equal(rounded.float(), weight.half().float()) and not torch.equal(rounded.float(), weight.float())
    plain = [file for file in folder.rglob("*.safetensors") if ".fp16." not in file.name]
    for file in plain:
        file.rename(tmp_path / f"{file.parent.name}.safetensors")
    assert load_base("sdxl").hash == short.hash
    assert hub.complete_folder(repository, commit, offline=False) is None
    # Weights that were fetched before, in float32 alone, stay those of the projects that were begun on them.
    for file in folder.rglob("*.fp16.safetensors"):
        file.unlink()
    for file in plain:
        (tmp_path / f"{file.parent.name}.safetensors").rename(file)
    assert load_base("sdxl").hash == full.hash


def test_before_xl_is_here_it_is_estimated_in_half_precision(monkeypatch) -> None:
    monkeypatch.setattr(meta_base, "shipped_configs", lambda version: tiny_models.narrow_configs(version))
    monkeypatch.setattr(stored_layers, "WIDENED_BELOW", 1)
    for name, dtype in (("sdxl", torch.float16), ("sd-v1-4", torch.float32)):
        assert meta_base.load_meta_base(name, None).unet.time_embedding.linear_1.weight.dtype == dtype
    with pytest.raises(Unreachable):
        meta_base.load_meta_base("someone/sdxl", COMMIT)


def test_pickled_weights_are_fetched_only_where_there_is_nothing_else() -> None:
    wanted = hub.wanted_files(["unet/diffusion_pytorch_model.bin", "vae/diffusion_pytorch_model.safetensors"])
    assert wanted == ["unet/diffusion_pytorch_model.bin", "vae/diffusion_pytorch_model.safetensors"]


def test_the_known_bases_are_pinned() -> None:
    for repository, revision in KNOWN_BASES.values():
        assert hub.is_repository(repository)
        assert hub.is_revision(revision)


def test_a_pinned_base_is_resolved_without_a_question(monkeypatch) -> None:
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *a, **k: pytest.fail("asked the hub"))
    reference = resolve_base("sd-v1-4")
    assert (reference.kind, reference.source) == ("hub", "CompVis/stable-diffusion-v1-4")
    assert resolve_base("someone/thing", COMMIT).revision == COMMIT


def test_an_unpinned_repository_is_asked_once_for_its_commit(monkeypatch) -> None:
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *a, **k: SimpleNamespace(sha=COMMIT))
    reference = resolve_base("someone/thing", "main")
    assert (reference.revision, reference.name) == (COMMIT, "thing")


@pytest.mark.parametrize("error", [OSError("no route"), ConnectionError("refused"), RuntimeError("odd")])
def test_a_hub_out_of_reach_is_exit_4_with_the_ways_out(monkeypatch, error) -> None:
    def fail(*arguments, **options):
        raise error

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", fail)
    with pytest.raises(Unreachable) as caught:
        load_base("sd-v1-4")
    assert caught.value.exit_code == 4
    assert "--base tiny" in caught.value.hint
    assert "local path" in caught.value.hint


def test_a_hub_that_never_answers_is_given_up_in_time(monkeypatch) -> None:
    never = threading.Event()
    monkeypatch.setattr(hub, "DEADLINE_SECONDS", 0.05)
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *a, **k: never.wait(30))
    with pytest.raises(Unreachable, match="no answer"):
        load_base("sd-v1-4")
    never.set()
    assert hub.QUESTION_TIMEOUT_SECONDS < 10


def test_offline_opens_no_connection(monkeypatch) -> None:
    monkeypatch.setattr(socket, "create_connection", lambda *a, **k: pytest.fail("connected"))
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *a, **k: pytest.fail("asked the hub"))
    for source in ("sd-v1-4", "someone/thing"):
        with pytest.raises(Unreachable, match="--offline"):
            load_base(source, offline=True)


def test_a_complete_copy_in_the_cache_is_used_without_a_question(tmp_path, monkeypatch) -> None:
    store = tmp_path / "hub" / "models--someone--thing"
    (store / "refs").mkdir(parents=True)
    (store / "refs" / "main").write_text(COMMIT)
    tiny_models.write_folder(store / "snapshots" / COMMIT)
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *a, **k: pytest.fail("asked the hub"))
    base = load_base("someone/thing", offline=True)
    assert (base.revision, base.kind, base.name) == (COMMIT, "hub", "thing")


def test_an_unknown_repository_and_a_gated_one_are_told_apart(monkeypatch) -> None:
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    for kind, words in ((GatedRepoError, "terms"), (RepositoryNotFoundError, "no public model")):
        error = kind.__new__(kind)
        Exception.__init__(error, "no")

        def fail(*arguments, error=error, **options):
            raise error

        monkeypatch.setattr(huggingface_hub.HfApi, "model_info", fail)
        with pytest.raises(BaseMissing, match=words):
            resolve_base("someone/thing")


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (
            {"unet/config.json": {"addition_embed_type": "text_time", "cross_attention_dim": 1280}},
            UnsupportedFile,
            "the refiner of Stable Diffusion XL",
        ),
        ({"unet/config.json": {"addition_embed_type": "text_time"}}, BaseMissing, "text_encoder_2/config.json"),
        ({"model_index.json": {"_class_name": "FluxPipeline"}}, UnsupportedFile, "Flux"),
        ({"vae/config.json": None}, BaseMissing, "vae/config.json"),
        ({}, None, ""),
    ],
)
def test_init_judges_a_repository_from_its_configurations_alone(tmp_path, monkeypatch, change, error, words) -> None:
    folder = tiny_models.write_folder(tmp_path / "repository")
    for name, content in change.items():
        if content is None:
            (folder / name).unlink()
        else:
            (folder / name).write_text(json.dumps({**json.loads((folder / name).read_text()), **content}))
    listed = [SimpleNamespace(rfilename=str(path.relative_to(folder))) for path in folder.rglob("*") if path.is_file()]
    info = SimpleNamespace(sha=COMMIT, siblings=listed)
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *a, **k: info)
    fetched: list[str] = []

    def fetch(repository: str, revision: str, files: list[str]) -> Path:
        fetched.extend(files)
        target = tmp_path / "fetched"
        for name in files:
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(folder / name, target / name)
        return target

    monkeypatch.setattr(hub, "_fetch", fetch)
    reference = resolve_base("someone/thing")
    if error is None:
        assert judge_base(reference, offline=False) == []
    else:
        with pytest.raises(error, match=words):
            judge_base(reference, offline=False)
    assert fetched
    assert all(name.endswith(".json") for name in fetched)
