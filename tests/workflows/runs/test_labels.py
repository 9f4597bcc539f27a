"""Labels name the subject: {identifier} and {class} are for templates, never for a person's eyes."""

from __future__ import annotations

from dbcli.metrics.suites import SuitePrompt, short_label
from dbcli.project.prompts.identifiers import Words
from dbcli.workflows.evaluation.subject_prompts import label_of
from dbcli.workflows.runs.labels import rendered_label

TEMPLATE = "a {identifier} toy {class}"


def test_a_prompts_label_is_rendered_with_the_subject() -> None:
    prompt = SuitePrompt(TEMPLATE, short_label(TEMPLATE), "own prompts")
    assert label_of(prompt, Words("sks", "dog")) == "a sks toy dog"
    in_space = SuitePrompt("a {identifier} {class} in space", "in space", "own prompts")
    assert label_of(in_space, Words("sks", "dog")) == "in space"


def test_an_axis_of_templates_is_rendered_with_the_subject_or_says_so_for_several() -> None:
    axis = "template a photo of a {identifier} {class} · learning rate 0.0001"
    assert rendered_label(axis, ("sks", "dog")) == "template a photo of a sks dog · learning rate 0.0001"
    assert rendered_label(axis, None) == "template a photo of the subject · learning rate 0.0001"
    assert rendered_label("{class} {identifier}", None) == "the class the subject"
