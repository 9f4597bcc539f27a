"""A trained run of each kind of adapter for `clients`: exported as a person would, held against the run itself."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
from client_files import Case, as_base, changed_weights, expected_tensors  # noqa: E402
from models import write_pictures  # noqa: E402
from program import as_options, said  # noqa: E402

SIZE_PX = 64
TRAIN = {
    "prior.enabled": "false",
    "images.resolution": SIZE_PX,
    "train.precision": "fp32",
    "train.learning_rate": 0.003,
    "probe.judge": "off",
    "lora.targets": "[to_q,to_k,to_v,to_out.0,conv1,ff.net.2]",
}
RUNS: dict[str, dict[str, object]] = {
    "LoRA": {},
    "PiSSA": {"lora.init": "pissa"},
    "orthogonal": {"lora.init": "orthogonal"},
    "rsLoRA": {"lora.rslora": "true", "lora.rank": 8},
    "LoRA+": {"lora.b_rate_ratio": 16, "train.learning_rate": 0.0005},
    "DoRA": {"lora.dora": "true"},
    "LoKr": {"lora.kind": "lokr", "lora.factor": 8, "lora.alpha": 2},
    "LoKr, whole matrices": {"lora.kind": "lokr", "lora.factor": 8, "lora.rank": 4096},
    "LoKr, Tucker cores": {"lora.kind": "lokr", "lora.factor": 8, "lora.tucker": "true"},
    "LoHa": {"lora.kind": "loha", "lora.alpha": 2},
    "LoHa, Tucker cores": {"lora.kind": "loha", "lora.tucker": "true"},
}
FILE = "weights/pytorch_lora_weights.safetensors"
# A DoRA is not written in kohya's format.
TARGETS = {"DoRA": "checkpoint"}


def write_runs(folder: Path, model: Mapping[str, Any], base: Case, names: Sequence[str]) -> list[Case]:
    """Trains the named runs for three steps on the base in one file, and exports them in full precision."""
    from dbcli.diffusion.formats.lora_files import read_lora

    project = folder / "myproj"
    said(folder, "init", str(project), "--base", base.file)
    photos = write_pictures(folder / "photos", 2, size_px=SIZE_PX, seed=1)
    said(project, "add-subject", "dog", "--class", "dog", "--token", "sks", str(photos), "--no-caption")
    networks, cases = {"unet": model["unet"], "text_encoder": model["text_encoder"]}, []
    for name in names:
        how = as_options(TRAIN | RUNS[name])
        trained = said(project, "train", "--subject", "dog", "--method=lora", "--steps=3", *how)
        own = read_lora(project / "runs" / trained["name"] / FILE, as_base(model))
        changed, change = changed_weights(networks, own)
        stem = "".join(letter if letter.isalnum() else "-" for letter in name)
        expected = expected_tensors(base, folder / stem, changed)
        kind = TARGETS.get(name, "kohya")
        file = folder / f"{stem}.safetensors"
        said(project, "export", trained["name"], "--to", kind, "--precision", "fp32", "--out", str(file))
        cases.append(Case(f"{kind}: {name}", kind, "fp32", str(file), expected, change))
    return cases
