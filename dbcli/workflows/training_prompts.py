"""Every prompt that a run will use, rendered and read before it begins: captions, templates, probes, previews."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from dbcli.errors import ConfigError, PromptError
from dbcli.project.identifiers import render_with
from dbcli.project.layout import Layout
from dbcli.project.names import printable
from dbcli.project.photo_notes import captions_of
from dbcli.project.profile_settings import Profile
from dbcli.project.subjects import Subject
from dbcli.prompt_text import cleaned
from dbcli.workflows.inversion import INVERSION, has_prior
from dbcli.workflows.material import instance_prompt
from dbcli.workflows.prior import class_prompt
from dbcli.workflows.progress import Progress
from dbcli.workflows.prompt_reading import MARKS, check_length, max_tokens_of


def check_training_prompts(layout: Layout, subjects: Sequence[Subject], profile: Profile, progress: Progress) -> None:
    """Warns of prompts that are longer than the text encoder reads.

    Raises PromptError, naming the photo or the setting, for a prompt that cannot be rendered or whose subject would
    not be read, and ConfigError where only the vectors of textual inversion leave it no room.
    """
    max_tokens = max_tokens_of(layout)
    for subject in subjects:
        origins: dict[str, str] = {}
        for text, origin in _prompts(layout, subject, profile):
            origins.setdefault(text, origin)
        learnt = {subject.name: subject.words}
        where = {"where": lambda text, origins=origins: f" ({origins[text]})"}
        check_length(list(origins), learnt, progress, max_tokens, **where)
        count = profile.inversion.vectors
        if profile.method == INVERSION and count > 1 and subject.identifier:
            _check_vectors(list(origins), subject, count, max_tokens)


def _check_vectors(texts: Sequence[str], subject: Subject, count: int, max_tokens: int) -> None:
    from dbcli.workflows.progress import Silence

    vectors = {cleaned(str(subject.identifier)).casefold(): count}
    try:
        check_length(texts, {subject.name: subject.words}, Silence(), max_tokens, vectors)
    except PromptError as error:
        raise ConfigError(
            f"inversion.vectors is {count}: a prompt has no room for as many, this base reads {max_tokens - MARKS} "
            f"tokens. {error.message}",
            hint=f"--set inversion.vectors={max(1, max_tokens // 4)}",
        ) from error


def _prompts(layout: Layout, subject: Subject, profile: Profile) -> Iterator[tuple[str, str]]:
    """Rendered prompts, each with where it comes from."""
    words = {subject.name: subject.words}
    # A subject that a sweep made up in a dry run has no folder yet.
    is_here = layout.subject_file(subject.name).exists()
    captions = captions_of(layout, subject) if is_here else [photo.caption for photo in subject.photos]
    for photo, caption in zip(subject.photos, captions, strict=True):
        place = "images.template" if caption is None else f"the caption of {photo.file} of {subject.name}"
        try:
            yield instance_prompt(subject, caption, profile.images.template), place
        except PromptError as error:
            raise PromptError(f"{place[0].upper()}{place[1:]}: {error.message}", hint=error.hint) from error
    if has_prior(profile):
        yield class_prompt(profile.prior.template, subject.class_noun), "prior.template"
    templates = [("draw.negative", profile.draw.negative)]
    if profile.train.preview_every:
        templates.append(("train.preview_prompt", profile.train.preview_prompt or profile.images.template))
    if profile.probe.judge != "off":
        templates += [("probe.prompts", template) for template in profile.probe.prompts]
    for setting, template in templates:
        try:
            yield render_with(template, words), setting
        except PromptError as error:
            raise PromptError(
                f"{setting} '{printable(template)}': {error.message}", hint=f"--set {setting}=..."
            ) from error
