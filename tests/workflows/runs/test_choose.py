"""Which run draws: by its number, by a subject's name, or by what the prompts name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dbcli.errors import DreamboothError, PromptError, RunMissing
from dbcli.project.files.layout import Layout
from dbcli.project.files.yaml_files import write_yaml
from dbcli.project.runs.run_store import RunBase, RunRecord, RunSubject, create_run
from dbcli.project.settings.project_settings import ProjectSettings, save_settings
from dbcli.project.subjects.known_runs import run_meant
from dbcli.project.subjects.subject_record import Subject
from dbcli.workflows.prompts.render import rendered
from dbcli.workflows.runs.choose import chosen_run

BASE = RunBase(name="tiny", source="tiny")
WORDS = {"dog": ("sks", "dog"), "wolf": ("mwf", "dog"), "cup": ("tich", "mug")}


def made_run(layout: Layout, *subjects: str, **how: Any) -> str:
    """A run without weights, of the next number."""
    learnt = [RunSubject(name=one, identifier=WORDS[one][0], class_noun=WORDS[one][1]) for one in subjects]
    facts = {"state": "finished", "method": "lora", "subjects": learnt, "base": BASE}
    return create_run(layout, "-".join(subjects), lambda name: RunRecord(name=name, **facts | how))


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path)
    save_settings(layout, ProjectSettings(base="tiny"))
    for name, (identifier, noun) in WORDS.items():
        layout.subject_dir(name).mkdir(parents=True)
        write_yaml(layout.subject_file(name), Subject(name=name, class_noun=noun, identifier=identifier).to_plain())
    return layout


def name_of(layout: Layout, *prompts: str, run: str | None = None) -> str:
    record = chosen_run(layout, run, prompts=prompts)
    assert record is not None
    return record.name


def fault(layout: Layout, *prompts: str, run: str | None = None) -> DreamboothError:
    with pytest.raises(DreamboothError) as raised:
        rendered(layout, chosen_run(layout, run, prompts=prompts), prompts)
    return raised.value


def test_the_newest_run_that_knows_the_subject_draws(layout: Layout) -> None:
    for subject in ("dog", "wolf", "dog", "wolf"):
        made_run(layout, subject)
    assert name_of(layout, "a {dog} in space") == "0003-dog"
    assert name_of(layout, "a sks dog in space") == "0003-dog"
    assert name_of(layout, "a SKS dog") == "0003-dog"
    assert name_of(layout, "a sks_2 dog") == "0003-dog"
    assert name_of(layout, "a sksy cat") == "0004-wolf"
    assert name_of(layout, "a {wolf}", "a dog") == "0004-wolf"
    assert name_of(layout, "a dog in space") == "0003-dog"
    assert name_of(layout, "a tree in space") == "0004-wolf"


def test_an_unfinished_run_does_not_draw(layout: Layout) -> None:
    made_run(layout, "dog")
    made_run(layout, "dog", state="interrupted")
    assert name_of(layout, "a {dog}") == "0001-dog"


def test_cells_of_a_sweep_come_after_runs_made_by_hand(layout: Layout) -> None:
    made_run(layout, "dog")
    for subject in ("dog", "wolf", "wolf"):
        made_run(layout, subject, work_key="c0ffee")
    assert name_of(layout, "a {dog}") == "0001-dog"
    assert name_of(layout, "a {wolf}") == "0004-wolf"
    assert name_of(layout, "a tree") == "0001-dog"


def test_all_subjects_of_a_prompt_have_to_be_known(layout: Layout) -> None:
    made_run(layout, "dog", "wolf")
    made_run(layout, "dog")
    assert name_of(layout, "a {dog} and a {wolf}") == "0001-dog-wolf"
    assert name_of(layout, "a sks dog and a mwf dog") == "0001-dog-wolf"


def test_loras_that_know_one_subject_each_are_proposed_together(layout: Layout) -> None:
    made_run(layout, "dog")
    made_run(layout, "wolf")
    said = fault(layout, "a {dog} and a {wolf}")
    assert isinstance(said, PromptError)
    assert "dog: 0001-dog; wolf: 0002-wolf" in said.message
    assert said.hint == 'dreambooth generate "a {dog} and a {wolf}" --run 0001-dog --run 0002-wolf'


def test_a_subject_stands_for_its_newest_run(layout: Layout) -> None:
    for subject in ("dog", "wolf", "dog"):
        made_run(layout, subject)
    assert name_of(layout, run="dog") == "0003-dog"
    assert name_of(layout, run="2") == "0002-wolf"
    assert run_meant(layout, "0001-dog").name == "0001-dog"


def test_a_run_answers_to_its_own_name_without_the_number_where_it_is_the_only_one(layout: Layout) -> None:
    made_run(layout, "dog")
    for name in ("lokr", "dog-cat"):
        create_run(layout, name, lambda made: RunRecord(name=made, state="finished", method="lora", base=BASE))
    assert name_of(layout, run="lokr") == "0002-lokr"
    assert name_of(layout, run="dog-cat") == "0003-dog-cat"
    create_run(layout, "lokr", lambda made: RunRecord(name=made, state="finished", method="lora", base=BASE))
    said = fault(layout, "x", run="lokr")
    assert said.message == "2 runs are called 'lokr': 0004-lokr, 0002-lokr."
    assert said.hint == "name one by its number, such as 4"


def test_a_subject_comes_before_a_run_s_own_name(layout: Layout) -> None:
    made_run(layout, "dog")
    create_run(layout, "wolf", lambda made: RunRecord(name=made, state="finished", method="lora", base=BASE))
    assert fault(layout, "x", run="wolf").hint == "dreambooth train --subject wolf"
    made_run(layout, "dog", "wolf")
    assert name_of(layout, run="wolf") == "0003-dog-wolf"


def test_a_name_that_is_none_gets_the_nearest(layout: Layout) -> None:
    made_run(layout, "wolf")
    said = fault(layout, "x", run="wlof")
    assert isinstance(said, RunMissing)
    assert "Did you mean 'wolf'?" in said.message
    in_prompt = fault(layout, "a {wlof} in space")
    assert "Did you mean {wolf}?" in in_prompt.message
    assert in_prompt.hint == 'dreambooth generate "a {wolf} in space"'


def test_a_subject_that_no_run_knows_is_to_be_trained(layout: Layout) -> None:
    made_run(layout, "dog")
    for said in (fault(layout, "a {cup}"), fault(layout, "x", run="cup"), fault(layout, "a {cup}", run="dog")):
        assert said.hint == "dreambooth train --subject cup"


def test_a_run_that_does_not_know_a_subject_names_those_that_do(layout: Layout) -> None:
    made_run(layout, "wolf")
    made_run(layout, "dog")
    said = fault(layout, "a {wolf} in space", run="dog")
    assert "0002-dog never learnt 'wolf'; 0001-wolf did" in said.message
    assert said.hint == 'dreambooth generate "a {wolf} in space" --run 0001-wolf'


def test_a_renamed_subject_answers_to_both_names(layout: Layout) -> None:
    made_run(layout, "wolf")
    layout.subject_dir("wolf").rename(layout.subject_dir("rex"))
    renamed = Subject(name="rex", class_noun="dog", identifier="mwf", formerly=["wolf"])
    write_yaml(layout.subject_file("rex"), renamed.to_plain())
    for name in ("rex", "wolf"):
        assert name_of(layout, f"a {{{name}}}") == "0001-wolf"
        assert name_of(layout, run=name) == "0001-wolf"
        assert rendered(layout, run_meant(layout, "1"), [f"a {{{name}}}"]) == ["a mwf dog"]
