"""The project's own settings (`dreambooth.yaml`) and the person's settings for all projects."""

from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, Field, ValidationError, field_validator

from dbcli.errors import ConfigError, UsageError
from dbcli.hints import inside, nearest
from dbcli.project.files.layout import Layout
from dbcli.project.files.names import printable
from dbcli.project.files.records import Record, Whole, load_record
from dbcli.project.files.yaml_files import write_yaml

# The models that look at images, by the names that their places are given under.
JUDGE_NAMES = ("dino", "clip", "clip-l", "tiny-dino", "tiny-clip", "face", "mask", "caption")


def _known_judge(name: str) -> str:
    if name not in JUDGE_NAMES:
        near = nearest(name, JUDGE_NAMES)
        guess = f"; did you mean {near}?" if near else ""
        raise ValueError(f"should be one of {', '.join(JUDGE_NAMES)}{guess}")
    return name


JudgeName = Annotated[str, AfterValidator(_known_judge)]


class UserSettings(Record):
    """What a person wants in every project; a project's own settings win over it."""

    base: str | None = Field(default=None, description="the base that `dreambooth init` takes by default")
    profile: str | None = Field(default=None, description="the default profile: a shipped name or a file")
    judges: dict[JudgeName, str] = Field(
        default_factory=dict, description="judge name -> a local folder or a hub id, instead of the usual one"
    )
    overrides: dict[str, Any] = Field(
        default_factory=dict, description="profile settings, nested or dotted: {train: {steps: 400}}"
    )


SettingsType = TypeVar("SettingsType", bound=Record)
EMBEDDED_BASES = ("tiny", "tiny-xl", "tiny-flow")


class ProjectSettings(Record):
    """The contents of `dreambooth.yaml`."""

    base: str = Field(min_length=1, description="a known name, a hub id, a diffusers folder or a single file")
    revision: str | None = Field(default=None, description="the hub's commit, resolved once and then kept")
    base_hash: str | None = Field(default=None, description="SHA-256 over the base's weights, once known")
    prediction_type: Literal["epsilon", "v_prediction"] | None = Field(
        default=None, description="what the base's UNet predicts; what the base says of itself if left out"
    )
    vae: str | None = Field(
        default=None, min_length=1, description="a VAE in place of the base's own: a file or a diffusers folder"
    )
    vae_hash: str | None = Field(default=None, description="SHA-256 of that VAE's weights file")
    profile: str | None = Field(default=None, description="the default profile: a shipped name or a file")
    resolution: Whole | None = Field(
        default=None, ge=32, le=4096, multiple_of=8, description="pixels per side; the base's own if left out"
    )
    judges: dict[JudgeName, str] = Field(
        default_factory=dict, description="judge name -> a local folder or a hub id, instead of the usual one"
    )
    overrides: dict[str, Any] = Field(
        default_factory=dict, description="profile settings, nested or dotted: {train: {steps: 400}}"
    )

    @property
    def is_embedded(self) -> bool:
        """Whether the base is the embedded one or a form of it, which have judges and a suite of their own."""
        return self.base in EMBEDDED_BASES

    @property
    def base_choices(self) -> dict[str, str | None]:
        """What was chosen about the base beside its name, as the loaders of bases take it."""
        return {"prediction_type": self.prediction_type, "vae": self.vae}

    @field_validator("revision")
    @classmethod
    def _a_full_commit(cls, revision: str | None) -> str | None:
        if revision is None:
            return None
        if len(revision) != 40 or not set(revision) <= set("0123456789abcdef"):
            raise ValueError("should be a commit of 40 hex digits; a branch or a tag can move")
        return revision


def load_settings(layout: Layout) -> ProjectSettings:
    """Return the settings of a project; ConfigError names the file and every fault."""
    path = layout.settings_file
    try:
        return _load(ProjectSettings, path, "settings file")
    except FileNotFoundError as error:
        raise UsageError(f"{path} does not exist.", hint=inside(path.parent, "dreambooth init .")) from error


def save_settings(layout: Layout, settings: ProjectSettings) -> None:
    """Replace `dreambooth.yaml`; keys that were never given are left out of it."""
    write_yaml(layout.settings_file, _without_empty(settings.to_plain()))


def user_settings_file() -> Path:
    """Return where the person's own settings lie, whether the file is there or not."""
    from platformdirs import user_config_path

    return user_config_path("dreambooth", appauthor=False) / "settings.yaml"


def load_user_settings(path: Path | None = None) -> UserSettings:
    """Return the person's settings, empty ones where there is no file; ConfigError for a faulty one."""
    try:
        return _load(UserSettings, path or user_settings_file(), "user settings file")
    except FileNotFoundError:
        return UserSettings()
    except PermissionError as error:
        raise ConfigError(f"{error.filename} cannot be read: {error.strerror}.") from error


def _load(kind: type[SettingsType], path: Path, what: str) -> SettingsType:
    """A file of settings. Its ConfigError says where a profile's settings stand, if some stand beside the others."""
    try:
        return load_record(kind, path, what)
    except ConfigError as error:
        misplaced = _of_a_profile(error.__cause__)
        if not misplaced:
            raise
        hint = f"settings stand under overrides: move {', '.join(misplaced)} there, two spaces in"
        raise ConfigError(error.message, hint) from error


def _of_a_profile(error: BaseException | None) -> list[str]:
    """The unknown keys among the faults of a file that are a profile's settings, or sections of them."""
    from dbcli.project.settings.profiles import known_keys

    if not isinstance(error, ValidationError):
        return []
    unknown = [str(one["loc"][0]) for one in error.errors(include_url=False) if one["type"] == "extra_forbidden"]
    sections = {key.partition(".")[0] for key in known_keys()}
    return [printable(key) for key in unknown if key.partition(".")[0] in sections]


def _without_empty(plain: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in plain.items() if value is not None and value != {}}
