"""What stands beside each sentence that photos are taught with: a prompt of the class, its share of class images."""

from __future__ import annotations

import re
from dataclasses import dataclass

from dbcli.project.settings.profile_settings import ImageSettings, PriorSettings, Profile
from dbcli.workflows.models.textual_inversion import has_prior


@dataclass(frozen=True)
class ClassSentence:
    """The prompt of a class's images, with {class}, and how they are made; `settings.images` is how many of them."""

    template: str
    settings: PriorSettings


def class_sentences(prior: PriorSettings, images: ImageSettings) -> list[ClassSentence]:
    """For every sentence of `images.templates` what its class rows show: the same sentence without the identifier.

    `prior.images` is shared among the sentences that differ. `prior.template` stands for all of them where it is given.
    """
    if prior.template is not None:
        return [ClassSentence(prior.template, prior)] * len(images.templates)
    templates = [without_identifier_field(one) for one in images.templates]
    distinct = list(dict.fromkeys(templates))
    least, more = divmod(prior.images, len(distinct))
    counts = {one: max(1, least + (place < more)) for place, one in enumerate(distinct)}
    return [ClassSentence(one, prior.model_copy(update={"images": counts[one]})) for one in templates]


def first_class_template(profile: Profile) -> str:
    """The prompt by which a run's class is drawn to be looked at, with {class}."""
    return class_sentences(profile.prior, profile.images)[0].template


def without_identifier_field(template: str) -> str:
    """A sentence of photos as its class rows say it; one that names no class has it in the identifier's place."""
    if "{class}" not in template:
        return template.replace("{identifier}", "{class}") if "{identifier}" in template else "a photo of a {class}"
    return re.sub(r"\{identifier\} ?", "", template).strip()


def teaches_empty_prompt(profile: Profile) -> bool:
    """Whether class rows are taught with the empty prompt, too: only a teacher knows what is right there."""
    return has_prior(profile) and profile.prior.source == "teacher" and profile.prior.empty_share > 0


def stored_draws(profile: Profile) -> int:
    """How many predictions of its teacher a run stores for each class image at most; 0 where it stores none.

    An adapter has its base at hand, a full fine-tuning has not. A draw is used once in every round of the class images.
    """
    train, prior = profile.train, profile.prior
    if prior.source != "teacher" or profile.method != "full" or not has_prior(profile):
        return 0
    rounds = -(-train.steps * train.accumulation * train.batch_size // prior.images)
    if profile.images.buckets != "off":
        # Shared among sizes, few images may be rounded to half as many as a size's rows call for.
        rounds = 2 * rounds + 1
    return min(rounds, prior.teacher_draws) * (2 if teaches_empty_prompt(profile) else 1)
