"""Settings that the kind of a project's base does not allow, told before a run is made and the base is loaded."""

from __future__ import annotations

from collections.abc import Iterator

from dbcli.errors import ConfigError
from dbcli.project.settings.profile_settings import Profile
from dbcli.workflows.models.textual_inversion import has_prior
from dbcli.workflows.setup.base_facts import has_one_encoder, is_flow, trains_text


def check_demands(base: str, profile: Profile) -> None:
    """Raises ConfigError where a run would ask of its base what no base of its kind can do.

    `base` is a word as `init --base` takes it. One that is not on this machine yet is judged once it is loaded.
    """
    if profile.train.text_encoder and not trains_text(base):
        raise ConfigError(
            f"train.text_encoder: the text encoder of {base} is not trained.", hint="--set train.text_encoder=false"
        )
    if has_one_encoder(base):
        check_second_rate(base, profile)
    if not is_flow(base):
        return
    check_noise(base, profile, begins_with_noise=True)
    check_ranks(base, profile.lora.least_rank, is_flow=True)
    from dbcli.diffusion.schedulers.samplers import FLOW_SAMPLERS, check_flow_sampler

    wrong = {key: name for key, name in _samplers(profile) if name not in FLOW_SAMPLERS}
    for name in wrong.values():
        check_flow_sampler(name, list(wrong))


def check_second_rate(base: str, profile: Profile) -> None:
    """Raises ConfigError for a rate of the second text encoder, which a base with one would never use."""
    rate = profile.train.text_encoder_2_learning_rate
    if rate is not None:
        raise ConfigError(
            f"train.text_encoder_2_learning_rate is {rate:g}, but {base} has one text encoder.",
            hint="--set train.text_encoder_2_learning_rate=null; train.text_encoder_learning_rate is that one's",
        )


def check_noise(base: str, profile: Profile, *, begins_with_noise: bool) -> None:
    """Raises ConfigError for other than plain noise where images are drawn from that alone."""
    train = profile.train
    others = {"offset_noise": train.offset_noise, "multires_noise": train.multires_noise}
    found = {f"train.{name}": value for name, value in others.items() if value}
    if begins_with_noise and found:
        said = " and ".join(f"{name} is {value:g}" for name, value in found.items())
        raise ConfigError(
            f"{said}, but {base} is a flow-matching model: it draws from plain noise alone, and would never meet noise "
            "such as it was trained on.",
            hint=" ".join(f"--set {name}=0" for name in found),
        )


def check_ranks(base: str, least_rank: int, *, is_flow: bool) -> None:
    """Raises ConfigError for ranks by timestep where a base has no timesteps of diffusion."""
    if is_flow and least_rank > 0:
        raise ConfigError(
            f"lora.least_rank is {least_rank}, but {base} is a flow-matching model: a T-LoRA goes by the timesteps of "
            "diffusion.",
            hint="--set lora.least_rank=0",
        )


def _samplers(profile: Profile) -> Iterator[tuple[str, str]]:
    """The settings by which a run draws on its way, and what they are."""
    if has_prior(profile) and profile.prior.folder is None:
        yield "prior.sampler", profile.prior.sampler
    if profile.probe.judge != "off":
        yield "probe.sampler", profile.probe.sampler
    if profile.train.preview_every:
        yield "draw.sampler", profile.draw.sampler
