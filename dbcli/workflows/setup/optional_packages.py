"""Packages that only some settings need: asked for before any work is done, not in the middle of it."""

from __future__ import annotations

from importlib.util import find_spec

from dbcli.errors import ConfigError
from dbcli.hints import installing
from dbcli.project.settings.profile_settings import Profile


def require_extras(profile: Profile) -> None:
    """Raises ConfigError where a setting needs a package that is not installed, with the command that brings it."""
    if profile.train.optimizer == "adamw8bit" and find_spec("bitsandbytes") is None:
        raise ConfigError(
            "train.optimizer is adamw8bit, but bitsandbytes is not installed.",
            hint=f"{installing('bitsandbytes')}; or --set train.optimizer=adafactor, which needs no package",
        )
