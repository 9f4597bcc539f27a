"""`export --to comfyui`: the files in their places, and a workflow with the recipe of the run's best image."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from dbcli.project.files.layout import Layout
from dbcli.project.images.recipes import Recipe, read_recipe, save_png
from dbcli.project.runs.probe_files import ProbeEntry, ProbeRecord, probe_image, save_probes
from dbcli.project.runs.run_store import load_run
from dbcli.workflows.setup.effective_settings import profile_of
from dbcli.workflows.sharing.best_image import best_image
from dbcli.workflows.sharing.comfyui import format_of
from tests.cli.made_projects import command, trained_project
from tests.reliability.small_base import write_small_base

Run = Callable[..., Any]
# The widths by which ComfyUI knows Stable Diffusion 1.
WIDE = {"unet": {"block_out_channels": [320, 8], "cross_attention_dim": 768}, "text_encoder": {"hidden_size": 768}}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA (run 1) and a textual inversion (run 2), which was scored."""
    folder = tmp_path_factory.mktemp("comfyui")
    project = trained_project(folder, "--method=lora", base=write_small_base(folder / "base", wider=WIDE))
    short = ("--steps", "1", "--set=prior.enabled=false", "--set=draw.steps=2", "--quiet")
    train = ("-C", project, "train", "--subject", "dog", *short)
    command(*train, "--method", "textual-inversion")
    (project / "prompts.txt").write_text("a {dog}\na {dog} (red)\n", encoding="utf-8")
    command(
        "-C",
        project,
        "eval",
        "--run",
        2,
        "--prompts",
        project / "prompts.txt",
        "--judge",
        "tiny",
        "--count",
        2,
        "--quiet",
    )
    return project


@pytest.fixture
def project(made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(made)
    return made


def exported(run: Run, number: int, out: Path, *words: object) -> Any:
    done = run("export", number, "--to", "comfyui", "--out", out, "--json", *words)
    assert done.code == 0, done.err
    return done.document


def inputs(out: Path, document: Any) -> dict[str, Any]:
    file = out / document["workflow"].replace(".json", "-api.json")
    return {node["class_type"]: node["inputs"] for node in json.loads(file.read_text(encoding="utf-8")).values()}


def test_a_lora_lies_in_its_place_with_its_base_and_workflow(run: Run, tmp_path: Path, project: Path) -> None:
    out = tmp_path / "out"
    document = exported(run, 1, out, "--with-base")
    assert document["files"] == [
        "models/checkpoints/base.safetensors",
        "models/loras/myproj-0001-dog.safetensors",
        "user/default/workflows/myproj-0001-dog-api.json",
        "user/default/workflows/myproj-0001-dog.json",
    ]
    assert all((out / file).is_file() for file in document["files"])
    nodes = inputs(out, document)
    assert nodes["CheckpointLoaderSimple"]["ckpt_name"] == "base.safetensors"
    assert nodes["LoraLoader"]["lora_name"] == "myproj-0001-dog.safetensors"
    # No image of it was scored: its own settings, and the prompt that is proposed.
    assert document["taken_from"].startswith("the run's own settings") and document["likeness_beyond_class"] is None
    assert nodes["KSampler"]["steps"] == 2 and document["opens_with"]["prompt"] == "a sks dog in space"
    with safe_open(out / "models/loras/myproj-0001-dog.safetensors", "pt") as file:
        assert any(name.startswith("lora_unet_") for name in file.keys())  # noqa: SIM118


def test_a_collision_that_is_allowed_is_recorded_with_the_place_of_the_file(
    run: Run, tmp_path: Path, project: Path
) -> None:
    file = project / "runs/0001-dog/run.json"
    before = file.read_text(encoding="utf-8")
    record = json.loads(before)
    record["subjects"].append({**record["subjects"][0], "name": "tom", "class_noun": "cat"})
    file.write_text(json.dumps(record), encoding="utf-8")
    document = exported(run, 1, tmp_path / "out", "--allow-collision")
    file.write_text(before, encoding="utf-8")
    lines = (project / "runs/0001-dog/events.jsonl").read_text(encoding="utf-8").splitlines()
    (event,) = [event for event in map(json.loads, lines) if event.get("event") == "exported"]
    assert event["path"] == str(tmp_path / "out" / document["files"][0])
    assert Path(event["path"]).is_file()


def test_what_has_to_be_there_already_is_said(run: Run, tmp_path: Path, project: Path) -> None:
    done = run("export", 1, "--to", "comfyui", "--out", tmp_path / "out")
    assert done.code == 0, done.err
    assert "It needs models/checkpoints/base.safetensors beside it." in done.out
    assert "add --with-base" in done.err
    assert f"cp -r {tmp_path / 'out'}/. ComfyUI/" in done.out


def test_the_workflow_has_the_recipe_of_the_image_most_like_the_subject(
    run: Run, tmp_path: Path, project: Path
) -> None:
    scores = json.loads((project / "runs/0002-dog/eval/prompts/scores.json").read_text(encoding="utf-8"))
    (subject,) = scores["subjects"]
    each = {
        name: value
        for prompt in subject["prompts"]
        for name, value in zip(prompt["images"], prompt["beyond_class_by_image"], strict=True)
    }
    # The mean over a prompt's images is what is said of the prompt.
    for prompt in subject["prompts"]:
        values = prompt["beyond_class_by_image"]
        assert sum(values) / len(values) == pytest.approx(prompt["scores"]["beyond_class"], abs=1e-6)
    best = max(each, key=lambda name: each[name])
    document = exported(run, 2, tmp_path / "out")
    assert document["taken_from"].startswith(f"runs/0002-dog/eval/prompts/images/{best}")
    assert document["likeness_beyond_class"] == pytest.approx(each[best])
    recipe, nodes = (
        read_recipe(project / f"runs/0002-dog/eval/prompts/images/{best}"),
        inputs(tmp_path / "out", document),
    )
    assert nodes["KSampler"]["seed"] == recipe.seed
    texts = json.loads((tmp_path / "out" / document["workflow"]).read_text(encoding="utf-8"))["nodes"]
    (shown,) = (one["widgets_values"][0] for one in texts if one.get("title") == "Prompt")
    assert shown == recipe.prompt.replace("sks", "embedding:sks").replace("(", "\\(").replace(")", "\\)")


def test_without_scores_it_is_the_best_image_of_the_results_probe(made: Path, tmp_path: Path) -> None:
    layout = Layout(Path(shutil.copytree(made, tmp_path / "copy")))
    record = load_run(layout, "0001-dog")
    for index, (step, prompt) in enumerate([(2, "a dog"), (2, "a sks dog"), (2, "a sks dog in space"), (1, "early")]):
        recipe = Recipe(
            prompt=prompt, sampler="ddim", steps=2, guidance=2, seed=index, width=64, height=64, base_name="b"
        )
        path = probe_image(layout, record.name, step, index)
        path.parent.mkdir(parents=True, exist_ok=True)
        save_png(path, Image.new("RGB", (8, 8)), recipe)
    scored = {"editability": 0.2, "preservation": 0.25}
    entries = [
        # The first image is one of the class, which has no fidelity.
        ProbeEntry(step=2, fidelity=0.5, fidelities=[0.4, 0.6], images=[1, 2], **scored),
        ProbeEntry(step=1, fidelity=0.9, fidelities=[0.9], images=[3], **scored),
    ]
    save_probes(layout, record.name, ProbeRecord(probes=entries, chosen=2))
    found = best_image(layout, record, profile_of(layout, record), cast(Any, None))
    assert found.recipe.prompt == "a sks dog in space" and "of its probe" in found.source
    assert found.likeness == pytest.approx(0.35)


def test_a_word_is_an_embedding_beside_its_base(run: Run, tmp_path: Path, project: Path) -> None:
    document = exported(run, 2, tmp_path / "out")
    assert document["files"][0] == "models/embeddings/sks.safetensors"
    assert document["base_files"] == ["models/checkpoints/base.safetensors"]
    assert "LoraLoader" not in inputs(tmp_path / "out", document)


def test_what_cannot_be_is_refused_before_anything_is_written(run: Run, tmp_path: Path, project: Path) -> None:
    of_file = run("export", 1, "--to", "kohya", "--with-base", "--out", tmp_path / "a.safetensors")
    assert of_file.code == 2 and "--with-base goes with --to comfyui" in of_file.err
    of_hub = run("export", 1, "--to", "hub", "--repo", "my-dog", "--with-base", "--yes")
    assert of_hub.code == 2 and "--with-base goes with --to comfyui" in of_hub.err
    (tmp_path / "there").mkdir()
    assert run("export", 1, "--to", "comfyui", "--out", tmp_path / "there").code == 6
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


def test_a_dora_is_merged_since_comfyui_reads_its_magnitudes_otherwise(project: Path) -> None:
    layout = Layout(project)
    record = load_run(layout, "0001-dog")
    profile = profile_of(layout, record)
    dora = profile.model_copy(update={"lora": profile.lora.model_copy(update={"dora": True})})
    assert (format_of(layout, record, profile), format_of(layout, record, dora)) == ("kohya", "checkpoint")


def test_an_imported_lokr_with_magnitudes_is_merged_as_well(
    run: Run, tmp_path: Path, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(shutil.copytree(made, tmp_path / "p")))
    one = ("--subject", "dog", "--method", "lora", "--steps", 1, "--set=prior.enabled=false", "--set=lora.kind=lokr")
    made = run("train", *one, "--set=lora.factor=2", "--set=lora.targets=[to_q]", "--json", "--quiet").document["name"]
    file = tmp_path / "lokr.safetensors"
    assert run("export", made, "--to", "kohya", "--out", file).code == 0
    tensors = load_file(file)
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    for name in [name for name in shapes if name.endswith(".lokr_w1")]:
        second = next(shapes[one] for one in (name[:-1] + "2", name[:-1] + "2_a") if one in shapes)
        tensors[name.replace("lokr_w1", "dora_scale")] = torch.ones(shapes[name][0] * second[0], 1)
    save_file(tensors, file)
    taken = run("import-lora", file, "--token", "sks", "--class", "dog", "--json")
    assert taken.code == 0, taken.err
    layout = Layout(Path.cwd())
    record = load_run(layout, taken.document["name"])
    assert format_of(layout, record, profile_of(layout, record)) == "checkpoint"


def test_a_base_that_comfyui_does_not_know_is_refused(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(trained_project(tmp_path, "--method=lora"))
    done = run("export", 1, "--to", "comfyui")
    assert done.code == 6 and "its first block is 8 wide and reads prompts of 16" in done.err, done.err
    assert not list(Path("exports").glob("*"))
