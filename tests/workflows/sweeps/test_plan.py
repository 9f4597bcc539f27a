"""The settings of a sweep's runs as they are planned, on a project with one subject."""

from __future__ import annotations

from pathlib import Path

import pytest

from dbcli.project.files.layout import Layout
from dbcli.workflows.progress import Silence
from dbcli.workflows.sweeps.bench import BenchRequest, plan_bench
from dbcli.workflows.sweeps.plan import SweepRequest, plan_file
from tests.cli.made_projects import untrained_project

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


def test_a_method_that_a_sweep_sets_brings_the_profile_made_for_it(layout: Layout, tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    text = SWEEP.replace("profile: paper\n", "").split("grid:")[0] + "grid: {method: [full, lora]}\n"
    file.write_text(text, encoding="utf-8")
    cells = plan_file(layout, SweepRequest(str(file), dry=True), Silence()).cells
    assert [cell.stages[0].profile_name for cell in cells] == ["full", "lora"]
