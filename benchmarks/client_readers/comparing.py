"""What all readers share: the job, the tensors that a client should have loaded, and the greatest difference from them.

A reader runs in the client's own environment, so that it imports nothing of this project.
"""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

# Counters and constants that some clients keep beside the weights.
NO_WEIGHTS = ("position_ids", "logit_scale", "text_projection")


def job() -> dict[str, Any]:
    return json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))


def run(read: Callable[[dict[str, Any]], dict[str, Any]], version: str, cases: Iterable[dict[str, Any]]) -> None:
    """Reads every case and prints one line of JSON each; what a client says in refusing a file is its result."""
    for case in cases:
        try:
            result = read(case)
        except Exception as fault:  # any refusal of another program, whatever its type
            traceback.print_exc(file=sys.stderr)
            result = {"refused": f"{type(fault).__name__}: {fault}"}
        print("RESULT " + json.dumps({"case": case["name"], "version": version, **result}), flush=True)


def tensors_of(paths: Iterable[str]) -> dict[str, torch.Tensor]:
    """All tensors of some files as float32; later files overrule earlier ones."""
    from safetensors import safe_open  # not every client has it

    found: dict[str, torch.Tensor] = {}
    for path in paths:
        with safe_open(path, "pt") as file:
            found |= {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    return found


def greatest(found: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """The greatest difference of any weight, and the names of tensors that the client does not have."""
    missing, differing, most = [], [], 0.0
    for name, tensor in expected.items():
        if name.endswith(NO_WEIGHTS):
            continue
        if name not in found:
            missing.append(name)
            continue
        difference = float((found[name].detach().float() - tensor.float().reshape(found[name].shape)).abs().max())
        if difference > 1e-5:
            differing.append(name)
        most = max(most, difference) if difference == difference else float("inf")
    return {"difference": most, "missing": missing, "differing": differing}


def compared(found: Mapping[str, torch.Tensor], case: Mapping[str, Any], naming: str) -> dict[str, Any]:
    """The greatest difference from what the case expects, and from each other reading that the case names."""
    result = greatest(found, tensors_of(case["expected"][naming]))
    others = {
        name: greatest(found, tensors_of(paths[naming]))["difference"]
        for name, paths in case.get("readings", {}).items()
    }
    return result | ({"readings": others} if others else {})
