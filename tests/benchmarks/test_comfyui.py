"""Workflows for ComfyUI against what version 0.3.64 says of its nodes (comfyui_nodes.json), without ComfyUI."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from dbcli.diffusion.families.family import Family
from dbcli.diffusion.families.sd import SD
from dbcli.diffusion.families.sdxl import SDXL
from dbcli.diffusion.families.z_image import Z_IMAGE
from dbcli.project.images.recipes import Recipe
from dbcli.workflows.sharing.comfyui_graph import KINDS, api_workflow, interface_workflow
from dbcli.workflows.sharing.comfyui_nodes import Files, comfy_prompt, workflow_nodes
from dbcli.workflows.sharing.comfyui_sampling import NAMES, comfy_sampling, nearest_schedule

Script = Callable[[str], ModuleType]
NODES = json.loads((Path(__file__).with_name("comfyui_nodes.json")).read_text(encoding="utf-8"))["nodes"]
SCHEDULER = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
CHECKPOINT = Files("models/checkpoints/a.safetensors", "a", checkpoint="a.safetensors")
LORA = Files("models/loras/a.safetensors", "a", checkpoint="base.safetensors", lora="a.safetensors")
Z_LORA = Files("models/loras/a.safetensors", "a", lora="a.safetensors", parts=Z_IMAGE.comfyui_files)


def base_of(family: Family, prediction: str, channels: int = 4, **scheduler: Any) -> Any:
    """What workflows ask of a base, without networks."""
    settings = SCHEDULER | scheduler | {"prediction_type": prediction}
    return SimpleNamespace(
        family=family,
        prediction_type=prediction,
        latent_channels=channels,
        zero_negative=family is SDXL,
        scheduler_config=settings,
        process=family.process.of(settings),
        configs={"unet": {"use_linear_projection": family is SD and channels == 4 and prediction == "v_prediction"}},
    )


def recipe(**changes: Any) -> Recipe:
    table = {"prompt": "a sks dog", "negative": "blurry", "sampler": "ddim", "steps": 10, "guidance": 7.5, "seed": 42}
    return Recipe(**(table | {"width": 512, "height": 768, "base_name": "base"} | changes))


CASES: dict[str, tuple[Any, Files, Recipe]] = {
    "checkpoint": (base_of(SD, "epsilon"), CHECKPOINT, recipe()),
    "LoRA": (base_of(SDXL, "epsilon"), LORA, recipe(sampler="dpm++")),
    "no negative prompt": (base_of(SDXL, "epsilon"), LORA, recipe(negative="")),
    "v": (base_of(SD, "v_prediction"), LORA, recipe(extras={"clip_skip": 2})),
    "zero terminal SNR": (base_of(SDXL, "v_prediction", rescale_betas_zero_snr=True), CHECKPOINT, recipe()),
    "flow": (base_of(Z_IMAGE, "flow", 16, shift=3.0), Z_LORA, recipe(sampler="euler")),
}


@pytest.mark.parametrize("case", CASES)
def test_every_node_and_link_is_one_of_comfyuis(script: Script, case: str) -> None:
    base, files, image = CASES[case]
    nodes = workflow_nodes(image, comfy_sampling(image, base), files, base)
    definitions = script("comfyui_definitions")
    ready = api_workflow(nodes)
    assert definitions.faults(ready, NODES) == []
    # What the interface would queue of the file that it opens.
    queued = definitions.prompt_of(interface_workflow(nodes), NODES)
    assert queued == {number: {key: node[key] for key in ("class_type", "inputs")} for number, node in ready.items()}


@pytest.mark.parametrize("sampler", NAMES)
def test_every_sampler_has_a_name_that_comfyui_knows(sampler: str) -> None:
    how = comfy_sampling(recipe(sampler=sampler), base_of(SD, "epsilon"))
    choices = NODES["KSampler"]["inputs"]
    assert how.sampler in choices["sampler_name"]["type"] and how.scheduler in choices["scheduler"]["type"]


def test_the_table_of_nodes_is_comfyuis() -> None:
    for name, kind in KINDS.items():
        inputs = NODES[name]["inputs"]
        assert [one for one in inputs if one in kind.values] == list(kind.values), name  # the order of their values
        assert {one: inputs[one]["type"] for one in kind.links} == dict(kind.links), name
        assert NODES[name]["outputs"] == list(kind.outputs), name


def test_a_fault_is_told(script: Script) -> None:
    base, files, image = CASES["LoRA"]
    ready = api_workflow(workflow_nodes(image, comfy_sampling(image, base), files, base))
    faults = script("comfyui_definitions").faults
    (sampler,) = (number for number, node in ready.items() if node["class_type"] == "KSampler")
    inputs = ready[sampler]["inputs"]
    for name, value in (("sampler_name", "plms"), ("steps", 0), ("cfg", "7"), ("model", ["1", 1]), ("sigma", 1)):
        changed = ready | {sampler: ready[sampler] | {"inputs": inputs | {name: value}}}
        assert len(faults(changed, NODES)) == 1, name
    less = ready | {sampler: ready[sampler] | {"inputs": {key: inputs[key] for key in inputs if key != "seed"}}}
    assert faults(less, NODES) == [f"{sampler} KSampler: seed is missing"]


def values(case: str) -> Mapping[str, Mapping[str, Any]]:
    base, files, image = CASES[case]
    ready = api_workflow(workflow_nodes(image, comfy_sampling(image, base), files, base))
    return {node["class_type"]: node["inputs"] for node in ready.values()}


def test_the_sampler_opens_with_the_recipe() -> None:
    sampler = values("checkpoint")["KSampler"]
    assert {name: sampler[name] for name in ("seed", "steps", "cfg", "sampler_name", "scheduler", "denoise")} == {
        "seed": 42,
        "steps": 10,
        "cfg": 7.5,
        "sampler_name": "ddim",
        "scheduler": "ddim_uniform",
        "denoise": 1.0,
    }
    assert values("checkpoint")["EmptyLatentImage"] == {"width": 512, "height": 768, "batch_size": 1}


def test_no_negative_prompt_is_zeros_where_the_base_has_it_so() -> None:
    without = values("no negative prompt")
    zeros, slot = without["KSampler"]["negative"]
    base, files, image = CASES["no negative prompt"]
    ready = api_workflow(workflow_nodes(image, comfy_sampling(image, base), files, base))
    assert (ready[zeros]["class_type"], slot) == ("ConditioningZeroOut", 0)
    text, _ = without["ConditioningZeroOut"]["conditioning"]
    assert ready[text]["inputs"]["text"] == ""
    # A negative prompt that was given is read, and other bases read the empty one.
    assert "ConditioningZeroOut" not in values("LoRA")
    others = workflow_nodes(image, comfy_sampling(image, base), files, base_of(SD, "epsilon"))
    assert "ConditioningZeroOut" not in [node.kind for node in others]


def test_what_a_file_does_not_say_of_its_base_is_told() -> None:
    assert "ModelSamplingDiscrete" not in values("LoRA")
    assert values("v")["ModelSamplingDiscrete"]["zsnr"] is False
    assert (
        values("v")["CLIPSetLastLayer"]["stop_at_clip_layer"] == -3
    )  # of Stable Diffusion 2 the last but one is usual
    zero = values("zero terminal SNR")
    assert (zero["ModelSamplingDiscrete"]["zsnr"], zero["RescaleCFG"]["multiplier"]) == (True, 0.7)
    flow = values("flow")
    assert flow["ModelSamplingAuraFlow"]["shift"] == 3.0
    assert flow["LoraLoaderModelOnly"]["strength_model"] == 1.0 and flow["CLIPLoader"]["type"] == "lumina2"
    assert (flow["KSampler"]["sampler_name"], flow["KSampler"]["scheduler"]) == ("euler", "simple")


def test_a_schedule_is_chosen_by_the_timesteps_it_visits() -> None:
    assert nearest_schedule([999, 899, 799, 699, 599, 499, 399, 299, 199, 99], 10) == "simple"
    assert nearest_schedule([901, 801, 701, 601, 501, 401, 301, 201, 101, 1], 10) == "ddim_uniform"
    assert nearest_schedule([999, 888, 777, 666, 555, 444, 333, 222, 111, 0], 10) == "normal"
    assert nearest_schedule([999, 799, 599, 400, 200], 5) == "sgm_uniform"
    # 30 steps of 33 timesteps: ComfyUI's ddim_uniform makes 31 of them.
    assert nearest_schedule(list(range(958, 0, -33)), 30) != "ddim_uniform"


@pytest.mark.parametrize(
    ("sampler", "extras", "scheduler"),
    [
        ("ddim", {"timesteps": "noisiest"}, "simple"),
        ("ddim", {}, "ddim_uniform"),
        ("euler", {"timesteps": "noisiest"}, "normal"),
        ("dpm++", {"timesteps": "noisiest"}, "sgm_uniform"),
        ("dpm++-karras", {"timesteps": "noisiest"}, "karras"),
        ("heun", {"timesteps": "noisiest"}, "normal"),
    ],
)
def test_the_timesteps_of_an_image_choose_the_schedule(sampler: str, extras: dict[str, Any], scheduler: str) -> None:
    how = comfy_sampling(recipe(sampler=sampler, steps=20, extras=extras), base_of(SD, "epsilon"))
    assert (how.scheduler, how.notes) == (scheduler, ())


def test_what_comfyui_has_otherwise_is_said() -> None:
    base = base_of(SD, "epsilon")
    assert "adds other noise" in comfy_sampling(recipe(sampler="euler-a"), base).notes[0]
    assert "ipndm is the most like it" in comfy_sampling(recipe(sampler="pndm"), base).notes[0]
    assert "no eta" in comfy_sampling(recipe(eta=0.5), base).notes[0]


def test_prompts_are_written_as_comfyui_reads_them(script: Script) -> None:
    assert comfy_prompt("a sks dog (red), sksy", {}) == "a sks dog \\(red\\), sksy"
    assert comfy_prompt("a sks dog, sksy", {"sks": "sks"}) == "a embedding:sks dog, sksy"
    base, files, _ = CASES["checkpoint"]
    image = recipe(prompt="a {day|night} dog")
    nodes = workflow_nodes(image, comfy_sampling(image, base), files, base)
    texts = [one["widgets_values"] for one in interface_workflow(nodes)["nodes"] if one["type"] == "CLIPTextEncode"]
    assert texts == [["a \\{day|night\\} dog"], ["blurry"]]
    queued = script("comfyui_definitions").prompt_of(interface_workflow(nodes), NODES)
    assert [one["inputs"]["text"] for one in queued.values() if one["class_type"] == "CLIPTextEncode"][
        0
    ] == image.prompt
