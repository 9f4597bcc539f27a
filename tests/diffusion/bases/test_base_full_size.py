"""The real v1.4 architecture with random weights: from a folder, a safetensors file and a checkpoint.

Run by hand: `pytest -m slow tests/diffusion/bases/test_base_full_size.py -s`. Takes about 8 GB of disk and of memory.
"""

from __future__ import annotations

import gc
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dbcli.diffusion.bases.assembly import empty_network
from dbcli.diffusion.bases.single_file import shipped_configs
from dbcli.diffusion.families.sd import SD
from dbcli.diffusion.formats.checkpoint import original_tensors, write_checkpoint
from dbcli.diffusion.formats.diffusers_folder import write_base
from tests.diffusion import tiny_models
from tests.project import photo_makers

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

# In a process of its own, so that the peak is that of loading alone.
MEASURE = """
import json, resource, sys, time
start = time.perf_counter()
from dbcli.diffusion.bases.base import load_base
import torch
torch.set_num_threads(2)
imported = time.perf_counter()
base = load_base(sys.argv[1], offline=True)
loaded = time.perf_counter()
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
parts = base.networks.values()
print(json.dumps({
    "hash": base.hash,
    "import_s": round(imported - start, 1),
    "load_s": round(loaded - imported, 1),
    "weights_gb": round(sum(p.numel() * p.element_size() for m in parts for p in m.parameters()) / 1e9, 2),
    "peak_gb": round(after * 1024 / 1e9, 2),
    "resolution": base.resolution,
    "prediction_type": base.prediction_type,
}))
"""


def random_networks() -> dict:
    configs = shipped_configs("sd-v1")
    generator = torch.Generator().manual_seed(0)
    networks = {}
    for name, part in SD.parts.items():
        network = empty_network(name, part, configs[name])
        state = {
            key: torch.empty(tensor.shape, dtype=torch.float16).normal_(0, 0.02, generator=generator)
            for key, tensor in network.state_dict().items()
        }
        network.load_state_dict(state, assign=True)
        networks[name] = network.eval().requires_grad_(False)
    return networks


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, Path]:
    """A folder, a `.safetensors` and a `.ckpt` of one random model, half precision, 2.1 GB each."""
    root, configs = tmp_path_factory.mktemp("full"), shipped_configs("sd-v1")
    networks = random_networks()
    model = tiny_models.base_of(networks, scheduler_config=configs["scheduler"])
    write_base(root / "folder", model)
    write_checkpoint(root / "model.safetensors", model)
    torch.save({"state_dict": original_tensors(model), "global_step": 470000}, root / "model.ckpt")
    del networks, model
    gc.collect()
    return {"folder": root / "folder", "safetensors": root / "model.safetensors", "ckpt": root / "model.ckpt"}


def measure(path: Path, cache: Path) -> dict:
    import os

    environment = {**os.environ, "XDG_CACHE_HOME": str(cache), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-W", "ignore", "-c", MEASURE, str(path)]
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr[-2000:]
    return json.loads(finished.stdout.splitlines()[-1])


def test_every_container_loads_to_the_same_model_within_memory(files, tmp_path: Path) -> None:
    figures = {}
    for kind, path in files.items():
        figures[kind] = measure(path, tmp_path / "cache")
        figures[f"{kind}, hash remembered"] = measure(path, tmp_path / "cache")
    for kind, figure in figures.items():
        print(f"\n{kind}: {figure}")
    assert len({figure["hash"] for figure in figures.values()}) == 1
    assert {figure["resolution"] for figure in figures.values()} == {512}
    for kind, figure in figures.items():
        # 1.07 billion values, two bytes each, as they are stored.
        assert figure["weights_gb"] == pytest.approx(2.13, abs=0.01)
        # No second copy of the weights is ever held; the file of a checkpoint is mapped and may be counted.
        copies = 2 if "ckpt" in kind else 1
        assert figure["peak_gb"] < copies * figure["weights_gb"] + 1.3


def dreambooth(*words: object, cwd: Path) -> dict:
    """One command of the program in a process of its own; its JSON document."""
    command = [sys.executable, "-W", "ignore", "-m", "dbcli.cli.app", *[str(word) for word in words], "--json"]
    finished = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr[-2000:]
    return json.loads(finished.stdout)


@pytest.mark.parametrize(("method", "source"), [("lora", "safetensors"), ("full", "folder")])
def test_one_step_and_a_picture_at_64_px(files, tmp_path: Path, method: str, source: str) -> None:
    photos = tmp_path / "photos"
    for number, colour in enumerate([(200, 100, 50), (60, 120, 200), (90, 200, 90)]):
        photo_makers.save(photos / f"{number}.png", photo_makers.plain(colour))
    project = tmp_path / "project"
    dreambooth("init", project, "--base", files[source], cwd=tmp_path)
    dreambooth("add-subject", "dog", "--class", "dog", photos, "--token", "sks", cwd=project)
    small = ["--set=images.resolution=64", "--set=prior.images=1", "--set=prior.steps=1", "--steps", 1]
    record = dreambooth("train", "--subject", "dog", "--method", method, *small, cwd=project)
    drawn = dreambooth("generate", "a {dog}", "-n", 1, "--steps", 2, cwd=project)
    timings = {phase: round(seconds, 1) for phase, seconds in record["timings"].items()}
    print(f"\n{method} from {source}: peak {record['peak_memory_bytes'] / 1e9:.1f} GB, seconds {timings}")
    assert record["state"] == "finished"
    assert Path(drawn["images"][0]["path"]).is_file()
