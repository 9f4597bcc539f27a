"""The layers that a run's adapters are asked for, held against those of its base."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dbcli.errors import BaseMissing, ConfigError, Unreachable
from dbcli.project.files.names import printable
from dbcli.project.settings.profile_settings import LoraSettings, Profile
from dbcli.project.settings.project_settings import ProjectSettings
from dbcli.workflows.setup.base_facts import place_of

if TYPE_CHECKING:
    from dbcli.diffusion.adapters.layer_names import Layers
    from dbcli.diffusion.bases.base import Base


def check_targets(settings: ProjectSettings, profile: Profile) -> None:
    """Raises ConfigError where lora.targets or lora.text_targets name layers that the project's base does not have.

    Headers of weights are asked first, which takes no torch; then its configuration, which knows every module. A base
    that is not on this machine yet is judged once it is loaded.
    """
    usual = LoraSettings()
    is_usual = (profile.lora.targets, profile.lora.text_targets) == (usual.targets, usual.text_targets)
    if profile.method != "lora" or is_usual:
        return
    from dbcli.diffusion.adapters.layer_names import stored_layers

    folder = place_of(settings.base)
    unet = stored_layers(folder / "unet")
    texts = [stored_layers(one) for one in sorted(folder.glob("text_encoder*"))]
    if unet and texts and all(texts):
        _require(unet, texts, profile.lora)
    from dbcli.diffusion.estimate.meta_base import load_meta_base

    try:
        base = load_meta_base(settings.base, settings.revision, **settings.base_choices)
    except (Unreachable, BaseMissing):
        return
    require_layers(base, profile.lora)


def require_layers(base: Base, lora: LoraSettings) -> None:
    """Raises ConfigError for names of layers that are not there, with those that are."""
    from dbcli.diffusion.adapters.layer_names import layers_of

    _require(layers_of(base.unet), [layers_of(one) for one in list(base.tunable.values())[1:]], lora)


def _require(unet: Layers, texts: Sequence[Layers], lora: LoraSettings) -> None:
    from dbcli.diffusion.adapters.layer_names import ALL_LINEAR, short_names, unusable

    faults = []
    for key, targets, layers, title in (
        ("lora.targets", lora.targets, unet, "UNet"),
        *(("lora.text_targets", lora.text_targets, layers, "text encoder") for layers in texts),
    ):
        wrong = unusable(layers, targets)
        if wrong:
            named = ", ".join(printable(one) for one in wrong)
            known, verb = ", ".join([*short_names(layers), ALL_LINEAR]), "is" if len(wrong) == 1 else "are"
            faults.append(f"{key}: {named} {verb} no layer of this {title}; it has {known}")
    if faults:
        raise ConfigError("\n".join(faults))
