"""A model file, checkpoint or result that was cut or has one byte flipped is named, and nothing is done with it."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from dbcli.errors import DreamboothError
from dbcli.project.files.layout import Layout
from dbcli.project.files.manifests import first_fault
from dbcli.project.runs.run_store import load_run
from dbcli.workflows.models.weights import load_model
from dbcli.workflows.progress import Silence
from dbcli.workflows.setup.open import load_project_base
from tests.reliability.conftest import JOB, RUN
from tests.reliability.processes import ForkServer, weights_hash
from tests.reliability.test_kinds_of_training import KINDS, WITHOUT_AVERAGES

# A busy machine is no fault: what would hang for ever is found by the processes' own limit.
pytestmark = pytest.mark.timeout(1800)
NewProject = Callable[[], Path]
Figures = Callable[[str], None]


SOME = ("LoKr", "schedulefree")
EVERY_KIND = [name if name in SOME else pytest.param(name, marks=pytest.mark.slow) for name in KINDS]


def cuts(size: int, count: int) -> list[int]:
    """Offsets from nothing to one byte less than all."""
    return sorted({size * number // count for number in range(count)} | {size - 1})


def damaged(content: bytes, count: int, chance: random.Random) -> list[bytes]:
    flipped = bytearray(content)
    place = chance.randrange(len(content))
    flipped[place] ^= 1 << chance.randrange(8)
    return [content[:offset] for offset in cuts(len(content), count)] + [bytes(flipped)]


@pytest.fixture
def own_base_project(server: ForkServer, base: Path, new_project: NewProject) -> tuple[Path, Path]:
    """A project with a finished run on a base of its own, which may be broken."""
    project = new_project()
    own = Path(shutil.copytree(base, project.parent / "own-base"))
    settings = project / "dreambooth.yaml"
    settings.write_text(settings.read_text().replace(str(base), str(own)))
    server.run(project, *JOB).check(0)
    return project, own


@pytest.mark.parametrize("count", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_every_damaged_file_of_a_base_is_named(
    own_base_project: tuple[Path, Path], figures: Figures, count: int
) -> None:
    project, own = own_base_project
    layout, chance, tried = Layout(project), random.Random(0), 0
    # model_index.json is for other programs; this one does not read it.
    files = sorted(path for path in own.rglob("*") if path.is_file() and path.name != "model_index.json")
    for path in files:
        content = path.read_bytes()
        for broken in damaged(content, count, chance):
            path.write_bytes(broken)
            with pytest.raises(DreamboothError) as caught:
                load_project_base(layout, Silence(), offline=True)
            assert str(path) in caught.value.message, (path, len(broken), caught.value.message)
            tried += 1
        path.write_bytes(content)
    load_project_base(layout, Silence(), offline=True)
    figures(f"{len(files)} files of a base, {tried} damages, every one refused by name")


@pytest.mark.parametrize(
    "words",
    [[], ["--method=full"], *([f"--set=lora.kind={kind}"] for kind in ("lokr", "loha"))],
    ids=["LoRA", "full", "LoKr", "LoHa"],
)
@pytest.mark.parametrize("count", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_every_damaged_file_of_a_result_is_named(
    server: ForkServer, new_project: NewProject, figures: Figures, words: list[str], count: int
) -> None:
    project = new_project()
    server.run(project, *JOB, *words).check(0)
    layout, chance, tried = Layout(project), random.Random(1), 0
    record = load_run(layout, RUN)
    files = sorted(path for path in (project / "runs" / RUN / "weights").rglob("*") if path.is_file())
    for path in files:
        content = path.read_bytes()
        for broken in damaged(content, count, chance):
            path.write_bytes(broken)
            with pytest.raises(DreamboothError) as caught:
                load_model(layout, record, Silence(), offline=True, device="cpu")
            assert str(path) in caught.value.message, (path, caught.value.message)
            tried += 1
        path.write_bytes(content)
    load_model(layout, record, Silence(), offline=True, device="cpu")
    path = files[-1]
    path.write_bytes(path.read_bytes()[:-1])
    ended = server.run(project, "generate", "a {dog}", "-n", 1).check(6)
    assert path.name in ended.err
    figures(f"{len(files)} files of a result, {tried} damages, every one refused by name")


def each_damage_is_told(checkpoint: Path, count: int, chance: random.Random) -> int:
    """Damages each file of a checkpoint in turn, which is whole again afterwards; how many damages were tried."""
    tried = 0
    for path in sorted(checkpoint.iterdir()):
        content = path.read_bytes()
        for broken in damaged(content, count, chance):
            path.write_bytes(broken)
            fault = first_fault(checkpoint)
            assert fault is not None and str(checkpoint) in fault
            tried += 1
        path.write_bytes(content)
    assert first_fault(checkpoint) is None
    return tried


@pytest.mark.parametrize("count", [4, pytest.param(20, marks=pytest.mark.slow)])
def test_a_damaged_checkpoint_is_told_and_an_earlier_one_used(
    server: ForkServer, new_project: NewProject, whole: tuple[str, float], figures: Figures, count: int
) -> None:
    project, chance = new_project(), random.Random(2)
    server.run(project, *JOB, fail_at_step={"step": 5, "error": "gpu"}).check(5)
    newest = project / "runs" / RUN / "checkpoints" / "step-000004"
    tried = each_damage_is_told(newest, count, chance)
    path = newest / "optimiser.safetensors"
    path.write_bytes(damaged(path.read_bytes(), 1, chance)[-1])
    ended = server.run(project, "train", "--resume").check(0)
    assert "optimiser.safetensors has changed" in ended.err
    assert weights_hash(project / "runs" / RUN) == whole[0]
    figures(f"{tried} damages of a checkpoint, none taken for one; the run went on from the one before")


@pytest.mark.parametrize("name", EVERY_KIND)
def test_with_a_damaged_checkpoint_each_kind_of_training_goes_on_from_the_one_before(
    server: ForkServer, new_project: NewProject, figures: Figures, name: str
) -> None:
    job = [*WITHOUT_AVERAGES, *KINDS[name]]
    whole, project, chance = new_project(), new_project(), random.Random(3)
    server.run(whole, *job).check(0)
    server.run(project, *job, fail_at_step={"step": 5, "error": "gpu"}).check(5)
    newest = project / "runs" / RUN / "checkpoints" / "step-000004"
    tried = each_damage_is_told(newest, 2, chance)
    file = max(newest.glob("*.safetensors"), key=lambda path: path.stat().st_size)
    file.write_bytes(damaged(file.read_bytes(), 1, chance)[-1])
    ended = server.run(project, "train", "--resume").check(0)
    assert f"{file.name} has changed" in ended.err
    assert weights_hash(project / "runs" / RUN) == weights_hash(whole / "runs" / RUN)
    figures(f"{name}: {tried} damages of a checkpoint told")
