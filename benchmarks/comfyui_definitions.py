"""What ComfyUI says of its nodes, made small; workflows checked by it, and made into prompts as its interface does."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

# Types that a person sets in the node itself; all others come through links. A list of choices is one, too.
SET_TYPES = ("INT", "FLOAT", "STRING", "BOOLEAN")
PYTHON_TYPES = {"INT": int, "FLOAT": (int, float), "STRING": str, "BOOLEAN": bool}
AFTER = "control_after_generate"
# Choices of files, which depend on what lies in its folder.
FILES = re.compile(r"^(ckpt|lora|unet|clip|vae)_name$")


def definitions_of(object_info: Mapping[str, Any]) -> dict[str, Any]:
    """Of every node: its inputs in order with their types or choices, whether they are required, and its outputs."""
    return {name: _definition(node) for name, node in object_info.items()}


def _definition(node: Mapping[str, Any]) -> dict[str, Any]:
    inputs = {}
    for group in ("required", "optional"):
        for name, said in node["input"].get(group, {}).items():
            kind, rest = said[0], (said[1] if len(said) > 1 else {})
            inputs[name] = {
                "type": "FILE" if FILES.match(name) else kind,
                "required": group == "required",
                **({AFTER: True} if rest.get(AFTER) else {}),
                **{bound: rest[bound] for bound in ("min", "max") if bound in rest},
            }
    return {"inputs": inputs, "outputs": list(node["output"])}


def is_set(kind: Any) -> bool:
    """Whether an input's value stands in its node."""
    return isinstance(kind, list) or kind == "FILE" or kind in SET_TYPES


def faults(prompt: Mapping[str, Any], definitions: Mapping[str, Any]) -> list[str]:
    """What ComfyUI would not take of a workflow for `POST /prompt`, a line each."""
    return [line for number, node in prompt.items() for line in _node_faults(number, node, prompt, definitions)]


def _node_faults(
    number: str, node: Mapping[str, Any], prompt: Mapping[str, Any], definitions: Mapping[str, Any]
) -> Iterator[str]:
    known = definitions.get(node["class_type"])
    if known is None:
        yield f"{number}: there is no node {node['class_type']}"
        return
    where = f"{number} {node['class_type']}"
    missing = [name for name, one in known["inputs"].items() if one["required"] and name not in node["inputs"]]
    yield from (f"{where}: {name} is missing" for name in missing)
    for name, value in node["inputs"].items():
        one = known["inputs"].get(name)
        if one is None:
            yield f"{where}: there is no input {name}"
        elif is_set(one["type"]):
            yield from (f"{where}: {name} {line}" for line in _value_faults(value, one))
        else:
            giver, slot = value
            outputs = definitions[prompt[giver]["class_type"]]["outputs"] if giver in prompt else []
            if slot >= len(outputs) or outputs[slot] != one["type"]:
                yield f"{where}: {name} wants {one['type']}, not output {slot} of {giver}"


def _value_faults(value: Any, one: Mapping[str, Any]) -> Iterator[str]:
    kind = one["type"]
    if isinstance(kind, list):
        if value not in kind:
            yield f"is none of its choices: {value}"
        return
    wanted = PYTHON_TYPES.get(kind, str)
    if not isinstance(value, wanted) or (isinstance(value, bool) and kind != "BOOLEAN"):
        yield f"is not {kind}: {value!r}"
    elif not one.get("min", value) <= value <= one.get("max", value):
        yield f"is out of range: {value}"


def prompt_of(workflow: Mapping[str, Any], definitions: Mapping[str, Any]) -> dict[str, Any]:
    """A workflow as the interface saves it, as the prompt that the interface queues."""
    links = {link[0]: [str(link[1]), link[2]] for link in workflow["links"]}
    return {str(node["id"]): _queued(node, definitions[node["type"]], links) for node in workflow["nodes"]}


def _queued(node: Mapping[str, Any], known: Mapping[str, Any], links: Mapping[int, Any]) -> dict[str, Any]:
    linked = {one["name"]: links[one["link"]] for one in node["inputs"]}
    values, inputs = iter(node["widgets_values"]), {}
    for name, one in known["inputs"].items():
        if not is_set(one["type"]):
            inputs[name] = linked[name]
            continue
        value = next(values, None)
        if value is None:
            continue  # one that came with a later version keeps its default
        inputs[name] = re.sub(r"\\([{}])", r"\1", value) if node["type"] == "CLIPTextEncode" else value
        if one.get(AFTER):
            next(values)
    return {"class_type": node["type"], "inputs": inputs}
