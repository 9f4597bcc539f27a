"""ComfyUI's workflows: nodes with their links, written as its interface saves them and as `POST /prompt` takes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Value = str | int | float | bool
# (the node that gives it, which of its outputs)
Link = tuple["Node", int]


@dataclass(frozen=True)
class Kind:
    """A node class of ComfyUI: its inputs that are linked, with their types, its values in order, and its outputs."""

    links: Mapping[str, str]
    values: Sequence[str]
    outputs: Sequence[str]


KINDS = {
    "CheckpointLoaderSimple": Kind({}, ("ckpt_name",), ("MODEL", "CLIP", "VAE")),
    "UNETLoader": Kind({}, ("unet_name", "weight_dtype"), ("MODEL",)),
    "CLIPLoader": Kind({}, ("clip_name", "type"), ("CLIP",)),
    "VAELoader": Kind({}, ("vae_name",), ("VAE",)),
    "LoraLoader": Kind(
        {"model": "MODEL", "clip": "CLIP"}, ("lora_name", "strength_model", "strength_clip"), ("MODEL", "CLIP")
    ),
    "LoraLoaderModelOnly": Kind({"model": "MODEL"}, ("lora_name", "strength_model"), ("MODEL",)),
    "ModelSamplingDiscrete": Kind({"model": "MODEL"}, ("sampling", "zsnr"), ("MODEL",)),
    "ModelSamplingAuraFlow": Kind({"model": "MODEL"}, ("shift",), ("MODEL",)),
    "RescaleCFG": Kind({"model": "MODEL"}, ("multiplier",), ("MODEL",)),
    "CLIPSetLastLayer": Kind({"clip": "CLIP"}, ("stop_at_clip_layer",), ("CLIP",)),
    "CLIPTextEncode": Kind({"clip": "CLIP"}, ("text",), ("CONDITIONING",)),
    "ConditioningZeroOut": Kind({"conditioning": "CONDITIONING"}, (), ("CONDITIONING",)),
    "EmptyLatentImage": Kind({}, ("width", "height", "batch_size"), ("LATENT",)),
    "EmptySD3LatentImage": Kind({}, ("width", "height", "batch_size"), ("LATENT",)),
    "KSampler": Kind(
        {"model": "MODEL", "positive": "CONDITIONING", "negative": "CONDITIONING", "latent_image": "LATENT"},
        ("seed", "steps", "cfg", "sampler_name", "scheduler", "denoise"),
        ("LATENT",),
    ),
    "VAEDecode": Kind({"samples": "LATENT", "vae": "VAE"}, (), ("IMAGE",)),
    "SaveImage": Kind({"images": "IMAGE"}, ("filename_prefix",), ()),
}
# The interface shows a choice behind a seed that it does not send: what becomes of it after an image.
AFTER_SEED = {"seed": "fixed"}
# The interface reads {day|night} as a choice, at random, where nothing stands before the brace.
CHOICES = str.maketrans({"{": "\\{", "}": "\\}"})
# Px in the interface: a column's width, the gap between nodes, and a node's height by its lines.
COLUMN, WIDTH, GAP, HEAD, LINE = 380, 340, 40, 60, 26
TALL = {"CLIPTextEncode": 180}
# The interface's own version of its file format.
FORMAT = 0.4


@dataclass(frozen=True, eq=False)
class Node:
    """One node: its class, its links by input, its values by input, and the column where the interface shows it."""

    kind: str
    column: int
    links: Mapping[str, Link] = field(default_factory=dict)
    values: Mapping[str, Value] = field(default_factory=dict)
    title: str = ""

    def __getitem__(self, output: str) -> Link:
        """A link from the output of this type."""
        return self, KINDS[self.kind].outputs.index(output)


def api_workflow(nodes: Sequence[Node]) -> dict[str, Any]:
    """The workflow as `POST /prompt` takes it, by the nodes' numbers; a node comes after those it is linked to."""
    numbers = {node: str(number) for number, node in enumerate(nodes, 1)}
    return {
        numbers[node]: {
            "class_type": node.kind,
            "inputs": {
                **{name: node.values[name] for name in KINDS[node.kind].values},
                **{name: [numbers[giver], slot] for name, (giver, slot) in node.links.items()},
            },
            "_meta": {"title": node.title or node.kind},
        }
        for node in nodes
    }


def interface_workflow(nodes: Sequence[Node]) -> dict[str, Any]:
    """The workflow as ComfyUI's interface saves and opens it."""
    numbers = {node: number for number, node in enumerate(nodes, 1)}
    links: list[list[int | str]] = []
    given: dict[tuple[int, int], list[int]] = {}
    taken: dict[tuple[int, str], int] = {}
    for node in nodes:
        for slot, (name, type_name) in enumerate(KINDS[node.kind].links.items()):
            giver, output = node.links[name]
            link = len(links) + 1
            links.append([link, numbers[giver], output, numbers[node], slot, type_name])
            given.setdefault((numbers[giver], output), []).append(link)
            taken[numbers[node], name] = link
    places = _places(nodes)
    return {
        "last_node_id": len(nodes),
        "last_link_id": len(links),
        "nodes": [_shown(node, numbers[node], places[node], given, taken) for node in nodes],
        "links": links,
        "groups": [],
        "config": {},
        "extra": {},
        "version": FORMAT,
    }


def _shown(
    node: Node,
    number: int,
    place: tuple[int, int],
    given: Mapping[tuple[int, int], list[int]],
    taken: Mapping[tuple[int, str], int],
) -> dict[str, Any]:
    kind = KINDS[node.kind]
    shown: list[Value] = []
    for name in kind.values:
        value = node.values[name]
        shown.append(value.translate(CHOICES) if node.kind == "CLIPTextEncode" and isinstance(value, str) else value)
        shown += [AFTER_SEED[name]] if name in AFTER_SEED else []
    return {
        "id": number,
        "type": node.kind,
        "pos": list(place),
        "size": [WIDTH, _height(node)],
        "flags": {},
        "order": number - 1,
        "mode": 0,
        "inputs": [
            {"name": name, "type": type_name, "link": taken[number, name]} for name, type_name in kind.links.items()
        ],
        "outputs": [
            {"name": type_name, "type": type_name, "links": given.get((number, slot), []), "slot_index": slot}
            for slot, type_name in enumerate(kind.outputs)
        ],
        "properties": {"Node name for S&R": node.kind},
        "widgets_values": shown,
        **({"title": node.title} if node.title else {}),
    }


def _height(node: Node) -> int:
    kind = KINDS[node.kind]
    lines = max(len(kind.links), len(kind.outputs)) + len(kind.values) + sum(name in AFTER_SEED for name in kind.values)
    return TALL.get(node.kind, HEAD + LINE * lines)


def _places(nodes: Sequence[Node]) -> dict[Node, tuple[int, int]]:
    """Columns from left to right, the nodes of each below one another."""
    tops: dict[int, int] = {}
    places = {}
    for node in nodes:
        top = tops.get(node.column, 0)
        places[node] = (node.column * COLUMN, top)
        tops[node.column] = top + _height(node) + GAP
    return places
