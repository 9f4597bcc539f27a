"""The settings of a sweep's runs as they are planned, on a project with one subject."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from dbcli.errors import ConfigError
from dbcli.project.files.layout import Layout
from dbcli.project.sweeps.sweep_records import CellRecord
from dbcli.workflows.progress import Silence
from dbcli.workflows.setup import effective_settings
from dbcli.workflows.sweeps import plan
from dbcli.workflows.sweeps.bench import BenchRequest, plan_bench
from dbcli.workflows.sweeps.plan import SweepRequest, plan_file
from tests.cli.made_projects import command, untrained_project
from tests.project import photo_makers

SWEEP = """
name: study
profile: paper
subject: dog
judge: none
pictures: {prompts: ['a {identifier} {class}'], count: 1}
grid: {prior.template: [null, "a photo of a {class}"]}
"""


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    return Layout(untrained_project(tmp_path_factory.mktemp("planned")))


def test_null_is_a_value_of_a_grid_like_any_other(layout: Layout, tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    file.write_text(SWEEP, encoding="utf-8")
    cells = plan_file(layout, SweepRequest(str(file), dry=True), Silence()).cells
    assert [cell.stages[0].profile.prior.template for cell in cells] == [None, "a photo of a {class}"]
    assert [cell.request.label for cell in cells] == ["template null", "template a photo of a {class}"]


def test_null_set_for_a_sweep_or_a_benchmark_takes_a_profiles_value_away(layout: Layout, tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    file.write_text(SWEEP.replace("grid: {prior.template", "grid: {train.seed: [0]} # "), encoding="utf-8")
    sets = ["prior.template=null"]
    (cell,) = plan_file(layout, SweepRequest(str(file), sets=sets, dry=True), Silence()).cells
    assert cell.stages[0].profile.prior.template is None
    request = BenchRequest(profile="paper", sets=sets, judge="none", dry=True)
    (cell,) = plan_bench(layout, request, Silence()).cells
    assert cell.stages[0].profile.prior.template is None


def test_paths_that_are_typed_for_a_sweep_or_a_benchmark_are_seen_from_the_current_folder(
    layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "study.yaml"
    file.write_text(SWEEP.replace("grid: {prior.template", "grid: {train.seed: [0]} # "), encoding="utf-8")
    sets = ["prior.folder=classes"]
    for made in (
        plan_file(layout, SweepRequest(str(file), sets=sets, dry=True), Silence()),
        plan_bench(layout, BenchRequest(profile="paper", sets=sets, judge="none", dry=True), Silence()),
    ):
        (cell,) = made.cells
        assert cell.stages[0].profile.prior.folder == str(tmp_path / "classes")


def test_a_method_that_a_sweep_sets_brings_the_profile_made_for_it(layout: Layout, tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    text = SWEEP.replace("profile: paper\n", "").split("grid:")[0] + "grid: {method: [full, lora]}\n"
    file.write_text(text, encoding="utf-8")
    cells = plan_file(layout, SweepRequest(str(file), dry=True), Silence()).cells
    assert [cell.stages[0].profile_name for cell in cells] == ["full", "lora"]


def planned(layout: Layout, folder: Path, grid: str, progress: Silence | None = None) -> None:
    text = SWEEP.replace("profile: paper", "profile: lora").split("grid:")[0] + f"grid: {grid}\n"
    (folder / "study.yaml").write_text(text, encoding="utf-8")
    plan_file(layout, SweepRequest(str(folder / "study.yaml"), dry=True), progress or Silence())


def test_layers_that_the_base_lacks_are_told_before_any_cell_runs(layout: Layout, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="lora.targets: to_x is no layer of this UNet; it has"):
        planned(layout, tmp_path, "{recipe: {plain: {}, wrong: {lora.targets: [to_x]}}}")


def test_what_the_kind_of_a_base_cannot_do_is_told_before_any_cell_runs(layout: Layout, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has one text encoder"):
        planned(layout, tmp_path, "{train.text_encoder_2_learning_rate: [null, 1e-5]}")


def test_a_package_that_is_not_here_is_told_before_any_cell_runs(
    layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(effective_settings, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="train.optimizer is adamw8bit, but bitsandbytes is not installed"):
        planned(layout, tmp_path, "{train.optimizer: [adamw, adamw8bit]}")


def test_runs_that_are_trained_already_need_no_package(
    layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(effective_settings, "find_spec", lambda name: None)
    finished = CellRecord(key="", state="finished")
    monkeypatch.setattr(plan, "load_cell", lambda layout, key: finished)
    planned(layout, tmp_path, "{train.optimizer: [adamw, adamw8bit]}")


def test_a_caption_that_is_too_long_is_told_once_for_all_cells(layout: Layout, tmp_path: Path) -> None:
    caption = layout.photos_dir("dog") / "0001.txt"
    caption.write_text("a {dog} " + "far away " * 80, encoding="utf-8")
    progress = Silence()
    planned(layout, tmp_path, "{train.seed: [0, 1], train.steps: [1, 2]}", progress)
    caption.unlink()
    assert len(progress.warnings) == 1
    assert "caption of 0001.png" in progress.warnings[0]


def test_a_sweep_of_subjects_that_are_not_here_says_how_to_take_ones_own(layout: Layout) -> None:
    with pytest.raises(ConfigError, match=r"--subject takes those you name in their place, --dataset DIR adds others"):
        plan_file(layout, SweepRequest("tiny-adapters", dry=True), Silence())


SEQUENCE = """
name: study
profile: lora
judge: none
pictures: {prompts: ['a {dog} in space', 'a {dog} and a {cat}', 'a {class}'], count: 1}
runs: [{subject: dog}, {subject: cat, from: previous}]
"""


@pytest.fixture
def with_cat(layout: Layout, tmp_path: Path) -> Layout:
    shutil.copytree(layout.root, tmp_path / "two")
    photo_makers.save(tmp_path / "cat.png", photo_makers.plain((200, 9, 50)))
    names = ("add-subject", "cat", "--class", "cat", "--token", "mwf")
    command("-C", tmp_path / "two", *names, tmp_path / "cat.png", "--quiet")
    return Layout(tmp_path / "two")


def test_prompts_may_name_every_subject_that_the_last_run_of_a_sequence_knows(with_cat: Layout, tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    file.write_text(SEQUENCE, encoding="utf-8")
    planned = plan_file(with_cat, SweepRequest(str(file), dry=True), Silence())
    assert [len(cell.stages) for cell in planned.cells] == [2]
    file.write_text(SEQUENCE.replace(", from: previous", ""), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"cat: The prompt says \{dog\}, and there is no such subject here"):
        plan_file(with_cat, SweepRequest(str(file), dry=True), Silence())
