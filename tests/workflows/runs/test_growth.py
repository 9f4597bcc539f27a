"""With many runs every record is read once, and what is asked of one run is not asked of all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dbcli.errors import PromptError
from dbcli.project.files import records, yaml_files
from dbcli.project.files.layout import Layout
from dbcli.project.files.yaml_files import write_yaml
from dbcli.project.runs.run_store import RunBase, RunRecord, RunSubject, create_run
from dbcli.project.settings.project_settings import ProjectSettings, save_settings
from dbcli.project.subjects.subject_record import Subject
from dbcli.workflows.runs.choose import chosen_run
from dbcli.workflows.runs.manage import all_runs
from dbcli.workflows.status import where_one_stands

RUNS = 5


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    made = Layout(tmp_path / "p")
    made.subject_dir("wolf").mkdir(parents=True)
    save_settings(made, ProjectSettings(base="tiny"))
    write_yaml(made.subject_file("wolf"), Subject(name="wolf", class_noun="dog", identifier="mwf").to_plain())
    learnt = [RunSubject(name="wolf", class_noun="dog", identifier="mwf")]
    facts = {"state": "finished", "method": "lora", "subjects": learnt, "base": RunBase(name="tiny", source="tiny")}
    for _ in range(RUNS):
        create_run(made, "wolf", lambda name: RunRecord.model_validate({"name": name, **facts}))
    return made


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often files of each name are read."""
    found: Counter[str] = Counter()

    def counted(real: Callable[[Path], Any]) -> Callable[[Path], Any]:
        def read_and_count(path: Path) -> Any:
            found[path.name] += 1
            return real(path)

        return read_and_count

    monkeypatch.setattr(records, "_read_json", counted(records._read_json))
    monkeypatch.setattr(records, "read_yaml", counted(yaml_files.read_yaml))
    return found


def test_a_list_and_the_status_read_every_record_once(layout: Layout, read: Counter[str]) -> None:
    assert len(all_runs(layout)[0]) == RUNS
    assert read["run.json"] == RUNS
    where_one_stands(layout.root)
    assert read["run.json"] == 2 * RUNS


def test_a_run_is_chosen_with_every_record_read_once(layout: Layout, read: Counter[str]) -> None:
    chosen = chosen_run(layout, None, prompts=["a {wolf} in space"])
    assert chosen is not None and chosen.number == RUNS
    assert read["run.json"] == RUNS and read["subject.yaml"] <= 3


def test_a_prompt_that_names_no_subject_reads_every_record_once(layout: Layout, read: Counter[str]) -> None:
    with pytest.raises(PromptError, match="known: {wolf}"):
        chosen_run(layout, None, prompts=["a {wlof} in space"])
    assert read["run.json"] == RUNS and read["subject.yaml"] <= 3
