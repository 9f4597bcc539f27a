"""How files name what is in a CLIP text encoder, and where it is in the network that the library at hand builds.

Everywhere else the names of layers and tensors lack the prefix `text_model.`. Files have it, whatever the library does:
transformers ≥ 5.6 keeps the tower one level deeper only in CLIPTextModelWithProjection.
"""

from __future__ import annotations

from typing import Any

TOWER = "text_model."
# It multiplies what comes out of the tower, and so lies beside it.
PROJECTION = "text_projection"


def name_in_files(name: str) -> str:
    """The name of a text encoder's layer or tensor in files: with `text_model.`, but for the projection's."""
    bare = name.removeprefix(TOWER)
    return bare if is_projection(bare) else TOWER + bare


def path_in(network: Any, layer: str) -> str:
    """The path of a layer in a network, UNets included, by its name without `text_model.`."""
    return TOWER + layer if hasattr(network, "text_model") and not is_projection(layer) else layer


def is_projection(name: str) -> bool:
    """Whether a name is that of the projection, or of something in it."""
    return name == PROJECTION or name.startswith(f"{PROJECTION}.")
