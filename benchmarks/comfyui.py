"""Exports runs for ComfyUI, opens their workflows in its server, and compares its images with this program's.

    python benchmarks/comfyui.py --comfyui ComfyUI PYTHON                    a run of every kind
    python benchmarks/comfyui.py --comfyui ComfyUI PYTHON --runs lokr loha   of some kinds
    python benchmarks/comfyui.py --comfyui ComfyUI PYTHON --samplers         every sampler, with the LoRA
    python benchmarks/comfyui.py --comfyui ComfyUI PYTHON --nodes FILE       what it says of its nodes, for the tests

ComfyUI is a folder with its code and a Python that has what it needs. A random model with the widths of Stable
Diffusion v1 (one width in all blocks) is trained for two steps at a high rate, so that the run changes its images.
Every folder is laid over an empty one of ComfyUI's, its server runs on the loopback address alone, and the workflow is
fetched from it as its sidebar does, made into a prompt by its own node definitions, queued and compared.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import quote
from urllib.request import Request, urlopen

sys.path.insert(0, str(Path(__file__).resolve().parent))
from client_files import make_model, write_bases  # noqa: E402
from comfyui_definitions import definitions_of, faults, prompt_of  # noqa: E402
from models import write_pictures  # noqa: E402
from program import said  # noqa: E402

WAIT_SECONDS = 300
SIZE_PX = 128
TRAIN = ("--steps=2", "--set=prior.enabled=false", f"--set=images.resolution={SIZE_PX}", "--set=train.precision=fp32")
DRAW = ("--set=draw.steps=10", "--set=draw.precision=fp32", "--set=draw.guidance=5", "--set=draw.negative=blurry (red)")
LORA = ("--method=lora", "--set=train.learning_rate=0.01", "--set=train.text_encoder=true")
RUNS = {
    "lora": LORA,
    "dora": (*LORA, "--set=lora.dora=true"),
    "pissa": ("--method=lora", "--set=train.learning_rate=0.001", "--set=lora.init=pissa"),
    "lokr": (*LORA, "--set=lora.kind=lokr", "--set=lora.factor=8"),
    "loha": (*LORA, "--set=lora.kind=loha"),
    "full": ("--method=full", "--set=train.learning_rate=0.0001"),
    "textual-inversion": ("--method=textual-inversion", "--set=train.learning_rate=0.1"),
}
SAMPLERS = ("ddim", "dpm++", "dpm++-karras", "euler", "heun", "unipc", "pndm", "ddpm", "dpm++-sde", "euler-a")
STEPS = (10, 12)
ONE = ("--count", "1", "--seed", "7")
# Their export is a whole model.
WHOLE = ("dora", "full")
FIGURES = ("greatest difference of 255", "mean", "deviation of the image")


@dataclass(frozen=True)
class Server:
    """A ComfyUI that answers at `address`."""

    address: str

    def get(self, path: str) -> bytes:
        with urlopen(f"{self.address}{path}", timeout=WAIT_SECONDS) as answer:
            return bytes(answer.read())

    def table(self, path: str) -> Any:
        return json.loads(self.get(path))

    def image(self, prompt: Mapping[str, Any]) -> bytes:
        """Queues a prompt and returns the PNG that it saves. Raises SystemExit with what ComfyUI says of a fault."""
        body = json.dumps({"prompt": prompt}).encode()
        request = Request(f"{self.address}/prompt", body, {"Content-Type": "application/json"})
        try:
            with urlopen(request, timeout=WAIT_SECONDS) as answer:
                number = json.load(answer)["prompt_id"]
        except URLError as error:
            said = error.read().decode() if hasattr(error, "read") else str(error)
            raise SystemExit(f"ComfyUI refuses the workflow: {said}") from error
        end = time.monotonic() + WAIT_SECONDS
        while time.monotonic() < end:
            found = self.table(f"/history/{number}").get(number)
            if found is not None:
                break
            time.sleep(0.2)
        else:
            raise SystemExit("ComfyUI made no image in time.")
        if found["status"]["status_str"] != "success":
            raise SystemExit(f"ComfyUI failed: {json.dumps(found['status'])[-2000:]}")
        (saved,) = [one for output in found["outputs"].values() for one in output.get("images", [])]
        return self.get(f"/view?filename={quote(saved['filename'])}&subfolder={quote(saved['subfolder'])}")


@contextmanager
def serving(code: Path, python: str, folder: Path) -> Iterator[Server]:
    """ComfyUI over a folder with models/ and user/, in full precision on the CPU."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [python, "main.py", "--cpu", "--listen", "127.0.0.1", "--port", str(port), "--base-directory", str(folder)]
    words += ["--fp32-unet", "--fp32-vae", "--fp32-text-enc", "--disable-all-custom-nodes", "--disable-auto-launch"]
    kept = ("PATH", "HOME", "TMPDIR", "OMP_NUM_THREADS")
    environment = {name: os.environ[name] for name in kept if name in os.environ} | {"HF_HUB_OFFLINE": "1"}
    log = folder / "server.log"
    with log.open("w") as told:
        process = subprocess.Popen(words, cwd=code, env=environment, stdout=told, stderr=subprocess.STDOUT)
        try:
            server, end = Server(f"http://127.0.0.1:{port}"), time.monotonic() + WAIT_SECONDS
            while True:
                try:
                    server.get("/system_stats")
                    break
                except OSError:
                    if process.poll() is not None or time.monotonic() > end:
                        raise SystemExit(f"ComfyUI did not start:\n{log.read_text()[-3000:]}") from None
                    time.sleep(0.5)
            yield server
        finally:
            process.terminate()
            process.wait()


def lively(model: dict[str, Any]) -> dict[str, Any]:
    """The model with a UNet that predicts as much noise as a trained one does; a new one predicts hardly any."""
    import torch

    unet, draw = model["unet"], torch.Generator().manual_seed(1)
    latents, prompt = torch.randn(1, 4, 16, 16, generator=draw), torch.randn(1, 77, 768, generator=draw)
    with torch.no_grad():
        spread = unet(latents, 500, prompt).sample.std()
        for parameter in unet.conv_out.parameters():
            parameter.div_(spread)
    return model


def make_project(work: Path, kinds: Sequence[str]) -> Path:
    """A project on the random base, with a run of each of these kinds."""
    base = Path(write_bases(work, lively(make_model("narrow")))[0].file)
    project = work / "myproj"
    said(work, "init", str(project), "--base", str(base))
    photos = write_pictures(work / "photos", 2, size_px=SIZE_PX, seed=1)
    said(project, "add-subject", "dog", "--class", "dog", "--token", "sks", str(photos), "--no-caption")
    for kind in kinds:
        said(project, "train", "--subject", "dog", *TRAIN, *DRAW, *RUNS[kind])
    return project


def score(project: Path, number: int, work: Path) -> None:
    """Scores two images of a run, so that the export has one to choose."""
    prompts = work / "prompts.txt"
    prompts.write_text("a {dog} in the snow\na {dog} on a (round) table\n", encoding="utf-8")
    said(project, "eval", "--run", str(number), "--prompts", str(prompts), "--judge", "tiny", "--count", "2")


def exported(project: Path, number: int, *words: str) -> dict[str, Any]:
    """What `export --to comfyui` says of a run, in full precision."""
    return said(project, "export", str(number), "--to", "comfyui", "--precision", "fp32", *words)


def through_comfyui(server: Server, document: Mapping[str, Any]) -> bytes:
    """The image that ComfyUI makes of the workflow it opens, which has to be the one that `POST /prompt` takes."""
    definitions = definitions_of(server.table("/object_info"))
    name = Path(document["workflow"]).name
    opened = server.table(f"/userdata/{quote(f'workflows/{name}', safe='')}")
    prompt = prompt_of(opened, definitions)
    ready = json.loads((Path(document["path"]) / document["workflow"].replace(".json", "-api.json")).read_text())
    found = faults(ready, definitions)
    if found or prompt != {number: {key: node[key] for key in prompt[number]} for number, node in ready.items()}:
        raise SystemExit(f"The two workflows differ, or have faults: {found}")
    return server.image(prompt)


def apart(own: Path | bytes, theirs: bytes) -> str:
    """How far two images lie apart: the greatest and the mean difference of a level of 255, and how far from grey."""
    import io

    import numpy as np
    from PIL import Image

    first, second = (
        np.asarray(Image.open(one if isinstance(one, Path) else io.BytesIO(one)).convert("RGB"), dtype=float)
        for one in (own, theirs)
    )
    difference = np.abs(first - second)
    return f"{difference.max():.0f} | {difference.mean():.3f} | {first.std():.1f}"


def heading(*columns: str) -> str:
    """The first two lines of a table."""
    names = [*columns, *FIGURES]
    return f"| {' | '.join(names)} |\n{'|---' * len(names)}|"


def run_kinds(code: Path, python: str, work: Path, kinds: Sequence[str]) -> None:
    """A run of each of these kinds, with the base it needs: how near ComfyUI's image is to the scored one."""
    project = make_project(work, kinds)
    print(heading("run", "image of", "sampler"))
    for number, kind in enumerate(kinds, 1):
        score(project, number, work)
        document = exported(project, number, *(() if kind in WHOLE else ("--with-base",)))
        folder = work / f"comfyui-{kind}"
        shutil.copytree(document["path"], folder)
        with serving(code, python, folder) as server:
            theirs = through_comfyui(server, document)
        shutil.rmtree(folder)
        own = project / document["taken_from"].split(",")[0]
        opened = document["opens_with"]
        print(
            f"| {kind} | {own.name} | {opened['sampler']}, {opened['scheduler']} | {apart(own, theirs)} |", flush=True
        )


def run_samplers(code: Path, python: str, work: Path) -> None:
    """The LoRA's image by every sampler, at a number of steps that divides 1000 and one that does not."""
    project = make_project(work, ["lora"])
    document = exported(project, 1, "--with-base")
    folder = work / "comfyui"
    shutil.copytree(document["path"], folder)
    print(heading("sampler", "steps", "in ComfyUI"))
    with serving(code, python, folder) as server:
        for sampler in SAMPLERS:
            for steps in STEPS:
                words = ("a {dog}", "--run", "1", "--sampler", sampler, "--steps", str(steps), *ONE)
                made = said(project, "generate", *words)
                own = Path(made["images"][0]["path"])
                prompt, how = workflow_of(project, own)
                print(f"| {sampler} | {steps} | {how} | {apart(own, server.image(prompt))} |", flush=True)


def workflow_of(project: Path, image: Path) -> tuple[dict[str, Any], str]:
    """The prompt that an export would make of an image's recipe, and its sampler and scheduler."""
    from dbcli.diffusion.estimate.meta_base import load_meta_base
    from dbcli.project.images.recipes import read_recipe
    from dbcli.workflows.sharing.comfyui_graph import api_workflow
    from dbcli.workflows.sharing.comfyui_nodes import Files, workflow_nodes
    from dbcli.workflows.sharing.comfyui_sampling import comfy_sampling

    export = next((project / "exports").glob("*-comfyui"))
    (lora,), (base,) = (list(export.glob(f"models/{place}/*")) for place in ("loras", "checkpoints"))
    facts, recipe = load_meta_base(str(base), None), read_recipe(image)
    how = comfy_sampling(recipe, facts)
    files = Files("", "image", checkpoint=base.name, lora=lora.name)
    return api_workflow(workflow_nodes(recipe, how, files, facts)), f"{how.sampler}, {how.scheduler}"


def write_nodes(code: Path, python: str, work: Path, file: Path) -> None:
    """Writes what ComfyUI says of the nodes that workflows have."""
    from dbcli.workflows.sharing.comfyui_graph import KINDS

    with serving(code, python, work) as server:
        found = definitions_of(server.table("/object_info"))
        version = server.table("/system_stats")["system"]["comfyui_version"]
    nodes = {kind: found[kind] for kind in sorted(KINDS)}
    file.write_text(json.dumps({"comfyui": version, "nodes": nodes}, indent=1) + "\n", encoding="utf-8")


def main(words: Sequence[str] | None = None) -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--comfyui", nargs=2, metavar=("FOLDER", "PYTHON"), required=True)
    options.add_argument("--work", type=Path, help="where the files are written, 8 GB")
    options.add_argument("--runs", nargs="+", choices=RUNS, default=list(RUNS), help="kinds of run; else all")
    options.add_argument("--samplers", action="store_true", help="every sampler instead of every kind of run")
    options.add_argument("--nodes", type=Path, metavar="FILE", help="write the node definitions and do nothing else")
    asked = options.parse_args(words)
    code, python = Path(asked.comfyui[0]).resolve(), str(Path(asked.comfyui[1]).absolute())
    with tempfile.TemporaryDirectory(dir=asked.work) as work:
        if asked.nodes is not None:
            write_nodes(code, python, Path(work), asked.nodes)
        elif asked.samplers:
            run_samplers(code, python, Path(work))
        else:
            run_kinds(code, python, Path(work), asked.runs)


if __name__ == "__main__":
    main()
