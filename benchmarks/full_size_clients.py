"""A base of full size and a LoRA for it in other programs: which keys each leaves unloaded.

    python benchmarks/full_size.py --work XL
    python benchmarks/full_size_clients.py --work XL --diffusers PYTHON --comfyui FOLDER PYTHON
                                            --sd-scripts FOLDER PYTHON

The LoRA is random, on the attention of the UNet and all linear layers of both text encoders, in kohya's layout, and for
diffusers in its own too. Programs are asked by their own loaders, one after another, each in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
from client_files import ALL_TEXT, ATTENTION  # noqa: E402

READER = Path(__file__).resolve().parent / "client_readers" / "unloaded_keys.py"
PROGRAMS = ("diffusers", "comfyui", "sd-scripts")


def write_loras(root: Path) -> tuple[dict[str, Path], int]:
    """The LoRA in both layouts, and how many layers it has."""
    import torch

    from dbcli.diffusion.estimate.meta_base import load_meta_base
    from dbcli.diffusion.formats.lora import LoraLayer, LoraWeights, module_shapes
    from dbcli.diffusion.formats.lora_writing import for_diffusers, for_kohya, write_diffusers_lora, write_kohya_lora

    base, generator = load_meta_base(str(root / "folder"), None), torch.Generator().manual_seed(1)
    parts: dict[str, dict[str, LoraLayer]] = {}
    for name, network in base.tunable.items():
        targets = ATTENTION if network is base.unet else ALL_TEXT
        parts[name] = {
            path: LoraLayer(
                torch.randn(4, shape[1], generator=generator), torch.randn(shape[0], 4, generator=generator), 4.0
            )
            for path, shape in module_shapes(network).items()
            if path.endswith(targets) and len(shape) == 2
        }
    lora, files = LoraWeights(parts), {name: root / f"{name}.safetensors" for name in ("kohya", "lora")}
    write_kohya_lora(files["kohya"], for_kohya(lora), base.family, configs=base.configs)
    write_diffusers_lora(files["lora"], for_diffusers(lora), base)
    return files, len(lora.layers)


def ask(program: str, python: str, folder: str, root: Path, files: dict[str, Path]) -> dict[str, Any]:
    """What a program says of the base and of each file."""
    loras = files.values() if program == "diffusers" else [files["kohya"]]
    table = {
        "program": program,
        "client": folder,
        "base": str(root / "file.safetensors"),
        "folder": str(root / "folder"),
        "loras": [str(file) for file in loras],
    }
    (root / "job.json").write_text(json.dumps(table), encoding="utf-8")
    kept = ("PATH", "HOME", "TMPDIR", "OMP_NUM_THREADS", "PYTHONPATH")
    environment = {name: os.environ[name] for name in kept if name in os.environ}
    environment |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [python, str(READER), str(root / "job.json")], capture_output=True, text=True, env=environment
    )
    lines = [line.removeprefix("RESULT ") for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if done.returncode or not lines:
        return {"version": program, "failed": done.stderr[-3000:]}
    return dict(json.loads(lines[-1]))


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--work", type=Path, required=True, help="where full_size.py wrote its base")
    options.add_argument("--diffusers", metavar="PYTHON")
    for program in PROGRAMS[1:]:
        options.add_argument(f"--{program}", nargs=2, metavar=("FOLDER", "PYTHON"))
    arguments = options.parse_args()
    root = arguments.work.resolve()
    files, layers = write_loras(root)
    print(f"The LoRA has {layers} layers.")
    for program in PROGRAMS:
        given = getattr(arguments, program.replace("-", "_"))
        if given is not None:
            folder, python = ("", given) if program == "diffusers" else (str(Path(given[0]).resolve()), given[1])
            print(json.dumps(ask(program, python, folder, root, files), indent=2), flush=True)


if __name__ == "__main__":
    main()
