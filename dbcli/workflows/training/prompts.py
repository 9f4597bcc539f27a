"""Every prompt that a run will use, rendered and read before it begins: captions, templates, probes, previews."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from dbcli.errors import ConfigError, PromptError
from dbcli.project.files.layout import Layout
from dbcli.project.files.names import printable
from dbcli.project.prompts.identifiers import Words, render_for
from dbcli.project.runs.run_store import RunSubject
from dbcli.project.settings.profile_settings import ImageSettings, Profile
from dbcli.project.subjects.photo_notes import caption_places, captions_of
from dbcli.project.subjects.subject_record import Subject
from dbcli.prompt_text import cleaned
from dbcli.workflows.class_images.sentences import class_sentences
from dbcli.workflows.models.textual_inversion import INVERSION, has_prior
from dbcli.workflows.progress import Progress, Silence
from dbcli.workflows.prompts.reading import MARKS, check_length, warn_of_syntax
from dbcli.workflows.setup.base_facts import facts_of
from dbcli.workflows.training.data import instance_prompt


@dataclass(frozen=True)
class RunPrompt:
    """One prompt of a run: the setting or file it comes from, as it is written there, and whom it is for.

    `words` are those that it may name; `caption_of` is the subject of a photo's caption, which is read with
    `before`, one of the `sentences`, as `instance_prompt` puts them together.
    """

    where: str
    template: str
    subject: str
    words: Mapping[str, Words]
    caption_of: Subject | None = None
    before: str = ""
    sentences: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """What the text encoder will be given. Raises PromptError for a field that does not exist."""
        if self.caption_of is not None:
            return instance_prompt(self.caption_of, self.template, self.before, self.sentences)
        return render_for(self.template, self.subject, self.words)


def settle_captions(layout: Layout, subjects: Sequence[Subject]) -> None:
    """Gives the photos of subjects, in place, the captions that a run takes now: of text files before the record's."""
    for subject in subjects:
        # A subject that a sweep made up in a dry run has no folder yet.
        if layout.subject_file(subject.name).exists():
            for entry, caption in zip(subject.photos, captions_of(layout, subject), strict=True):
                entry.caption = caption


def prompts_of_run(
    layout: Layout, subjects: Sequence[Subject], profile: Profile, earlier: Sequence[RunSubject] = ()
) -> Iterator[RunPrompt]:
    """The prompts of photos, class images, previews and probes.

    `subjects` are those whose photos are shown, with their captions settled; `earlier` others that the run knows.
    """
    shown = {one.name: one.words for one in subjects}
    everyone = {one.name: Words(one.identifier or "", one.class_noun) for one in earlier} | shown
    images, sentences = profile.images, tuple(profile.images.templates)
    for subject in subjects:
        name, own = subject.name, {subject.name: subject.words}
        for sentence in sentences:
            yield RunPrompt("images.templates", sentence, name, own)
        yield from _captions(layout, subject, images)
        for one in class_sentences(profile.prior, images) if has_prior(profile) else ():
            yield RunPrompt("prior.template", one.template, name, own)
        for template in profile.probe.prompts if profile.probe.judge != "off" else []:
            yield RunPrompt("probe.prompts", template, name, own)
    for name in everyone:
        yield RunPrompt("draw.negative", profile.draw.negative, name, everyone)
        if profile.train.preview_every:
            yield RunPrompt("train.preview_prompt", profile.train.preview_prompt or sentences[0], name, everyone)


def _captions(layout: Layout, subject: Subject, images: ImageSettings) -> Iterator[RunPrompt]:
    """What follows the sentences of a subject: its photos' captions, and the scenes it is shown in, cut out."""
    captions = zip(caption_places(layout, subject), (entry.caption for entry in subject.photos), strict=True)
    found = [(place, one) for place, one in captions if one is not None and images.caption_share]
    if images.scene_cutouts:
        found += [("images.scenes", f"a {{{subject.name}}} {scene}") for scene in images.scenes]
    sentences = tuple(images.templates)
    for place, caption in found:
        for sentence in sentences:
            yield RunPrompt(place, caption, subject.name, {subject.name: subject.words}, subject, sentence, sentences)


def check_training_prompts(
    layout: Layout,
    subjects: Sequence[Subject],
    profile: Profile,
    progress: Progress,
    earlier: Sequence[RunSubject] = (),
) -> None:
    """Warns of prompts that are longer than the text encoder reads; captions have to be settled.

    Raises PromptError with every prompt that cannot be rendered, or where a subject would not be read, and ConfigError
    where only the vectors of textual inversion leave it no room.
    """
    prompts = list(prompts_of_run(layout, subjects, profile, earlier))
    _check_fields(prompts)
    max_tokens, count = facts_of(layout).max_tokens, profile.inversion.vectors
    for subject in subjects:
        origins: dict[str, str] = {}
        for one in prompts:
            if one.subject == subject.name and one.template:
                origins.setdefault(one.text, one.where)

        def where(text: str, origins: Mapping[str, str] = origins) -> str:
            return f" ({origins[text]})"

        check_length(list(origins), {subject.name: subject.words}, progress, max_tokens, where=where)
        warn_of_syntax(list(origins), progress)
        if profile.method == INVERSION and count > 1 and subject.identifier:
            _check_vectors(list(origins), subject, count, max_tokens)


def _check_fields(prompts: Sequence[RunPrompt]) -> None:
    faults: dict[str, None] = {}
    for one in prompts:
        try:
            _ = one.text
        except PromptError as error:
            faults[f"{one.where}, '{printable(one.template, 120)}': {error.message}"] = None
    if faults:
        many = "A prompt" if len(faults) == 1 else f"{len(faults)} prompts"
        raise PromptError(f"{many} of this run cannot be read:\n" + "\n".join(f"  {line}" for line in faults))


def _check_vectors(texts: Sequence[str], subject: Subject, count: int, max_tokens: int) -> None:
    vectors = {cleaned(str(subject.identifier)).casefold(): count}
    try:
        check_length(texts, {subject.name: subject.words}, Silence(), max_tokens, vectors)
    except PromptError as error:
        raise ConfigError(
            f"inversion.vectors is {count}: a prompt has no room for that many; this base reads {max_tokens - MARKS} "
            f"tokens. {error.message}",
            hint=f"--set inversion.vectors={max(1, max_tokens // 4)}",
        ) from error
