"""Which libraries a command has imported when it ends, in a process of its own; seconds depend on them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.made_projects import trained_project

# For one UNet class diffusers would import PEFT and torch's compiler, and the compiler half of torch; the others are
# for judging, for charts, and for pipelines.
NOT_TO_DRAW = (
    "peft",
    "torch._dynamo",
    "torch._inductor",
    "triton",
    "diffusers.pipelines",
    "diffusers.models.autoencoders.autoencoder_rae",
    "torch.distributed.checkpoint",
    "torch.distributed.fsdp",
    "open_clip",
    "timm",
    "matplotlib",
    "scipy",
    "sklearn",
    "pandas",
)
ENDS = (
    "import atexit, sys\n"
    "atexit.register(lambda: print('IMPORTED', *[one for one in {names!r} if one in sys.modules], file=sys.stderr))\n"
    "from dbcli.cli.start import main\n"
    "main()"
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained_project(tmp_path_factory.mktemp("imports"), "--method", "full")


def imported(project: Path, names: tuple[str, ...], *words: str) -> tuple[list[str], str]:
    """Those of `names` that a command has imported in the end, and what it printed."""
    code = ENDS.format(names=names)
    done = subprocess.run(
        [sys.executable, "-c", code, *words], cwd=project, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("IMPORTED")]
    return line.split()[1:], done.stdout


@pytest.mark.parametrize(
    "words", [("generate", "-n", "1", "a {dog}"), ("tokens", "check", "zxq")], ids=["generate", "tokens check"]
)
def test_drawing_imports_nothing_that_it_does_not_use(trained: Path, words: tuple[str, ...]) -> None:
    found, _ = imported(trained, ("diffusers", "transformers", *NOT_TO_DRAW), *words)
    assert found == ["diffusers", "transformers"]


@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_dry_run_whose_recipe_is_known_imports_no_torch(trained: Path, method: str) -> None:
    words = ("train", "--dry-run", "--subject", "dog", "--method", method, "--json")
    _, first = imported(trained, (), *words)
    found, second = imported(trained, ("torch", "numpy", "diffusers", "transformers", "httpx", "requests"), *words)
    assert found == []
    documents = [json.loads(text) for text in (first, second)]
    for document in documents:
        assert document["outlook"].pop("free_bytes") > 0
    assert documents[0] == documents[1]
