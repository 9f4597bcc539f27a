"""A suite's prompts as one subject of a run is asked by them: which are its own, and their text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from dbcli.project.prompts.identifiers import Words, is_of, render_for
from dbcli.workflows.runs.labels import rendered_label

if TYPE_CHECKING:
    from dbcli.metrics.suites import Suite, SuitePrompt


def subject_prompts(suite: Suite, subject: str, words: Mapping[str, Words]) -> list[SuitePrompt]:
    """The prompts for one of a run's subjects: those that fit its class and do not name the others alone."""
    return [one for one in suite.prompts_for(words[subject].class_noun) if is_of(one.template, subject, words)]


def subject_texts(suite: Suite, subject: str, words: Mapping[str, Words]) -> list[str]:
    """The same as they are drawn. Raises PromptError for one that names a subject the run does not know."""
    return [render_for(one.template, subject, words) for one in subject_prompts(suite, subject, words)]


def label_of(prompt: SuitePrompt, own: Words) -> str:
    """A prompt's label with a subject's words in place of {identifier} and {class}."""
    return rendered_label(prompt.label, (own.identifier, own.class_noun))
