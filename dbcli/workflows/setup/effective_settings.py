"""Which settings hold: flag, then --set, then the project's file, the person's file, the profile."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from dbcli.errors import ConfigError, UsageError
from dbcli.hints import installing, nearest
from dbcli.project.files.layout import Layout
from dbcli.project.files.names import printable
from dbcli.project.runs.resumable import Change, changed_settings
from dbcli.project.runs.run_store import RunRecord
from dbcli.project.seeds import RANDOM, settled
from dbcli.project.settings.profile_settings import DrawSettings, Profile
from dbcli.project.settings.profiles import (
    flattened,
    frozen_profile,
    load_profile,
    parse_sets,
    resolve,
    shipped_profiles,
)
from dbcli.project.settings.project_settings import EMBEDDED_BASES, load_settings, load_user_settings
from dbcli.workflows.completions import JUDGES
from dbcli.workflows.setup.base_facts import base_like

# What a project on this base, or else on any other, takes where nobody chose: (method -> profile). A method that is not
# there cannot train the base; the first is the usual one.
DEFAULT_PROFILES = {
    "tiny": {"full": "tiny", "lora": "tiny-lora", "textual-inversion": "tiny-textual-inversion"},
    "tiny-xl": {"full": "tiny", "lora": "tiny-lora", "textual-inversion": "tiny-xl-textual-inversion"},
    "zimage": {"lora": "zimage-lora"},
    "tiny-flow": {"lora": "tiny-flow-lora"},
    "sdxl": {"full": "sdxl-full", "lora": "sdxl-lora", "textual-inversion": "textual-inversion"},
    "": {"full": "full", "lora": "lora", "textual-inversion": "textual-inversion"},
}
# No file: the largest recipe that this machine has the memory for.
AUTO = "auto"
# The settings that are paths.
PATHS = ("prior.folder",)
# The optimisers that need a package of their own.
OPTIMISER_PACKAGES = {"adamw8bit": "bitsandbytes", "prodigy": "prodigyopt"}


@dataclass(frozen=True)
class Carried:
    """What a run that goes on from another has of it: all its settings, and those of its adapter that cannot change."""

    origin: str
    profile_name: str
    settings: Mapping[str, Any]
    adapter: Mapping[str, Any]


def default_profiles(base: str) -> Mapping[str, str]:
    """The shipped profiles that fit a base, by method, the usual one first."""
    named = "tiny" if base in EMBEDDED_BASES else ""
    return DEFAULT_PROFILES.get(base) or DEFAULT_PROFILES.get(base_like(base)) or DEFAULT_PROFILES[named]


def default_profile(base: str, method: str | None) -> str:
    """The shipped profile that fits a base and a method."""
    profiles = default_profiles(base)
    # A method that does not exist is told with all other faults when the settings are resolved.
    return profiles.get(method or "", next(iter(profiles.values())))


def check_method(base: str, method: str) -> None:
    """Raises ConfigError for a method that the base cannot be trained with."""
    profiles = default_profiles(base)
    if method not in profiles:
        usual, profile = next(iter(profiles.items()))
        raise ConfigError(
            f"method {method}: {base} is a flow-matching model, which is trained with {' or '.join(profiles)} only.",
            hint=f"dreambooth train --method {usual}, or --profile {profile}",
        )


def default_judge(layout: Layout) -> str:
    """The embedded judges for the embedded base, the paper's for every other."""
    return "tiny" if load_settings(layout).is_embedded else "paper"


def usual_suite(layout: Layout) -> str:
    """The embedded suite for the embedded base, the paper's for every other."""
    from dbcli.metrics.suites import DEFAULT_SUITE

    return "tiny" if load_settings(layout).is_embedded else DEFAULT_SUITE


def check_judge(name: str | None, *, also: Sequence[str] = ()) -> None:
    """Raises UsageError, with the nearest name, for a set of judges that does not exist."""
    known = [*JUDGES, *also]
    if name is not None and name not in known:
        near = nearest(name, known)
        guess = f" Did you mean '{near}'?" if near else ""
        raise UsageError(f"There is no judge '{printable(name)}'.{guess}", hint=f"--judge {' or '.join(known)}")


def judge_sources(layout: Layout) -> dict[str, str]:
    """Where judges and other models that look at images lie: the person's settings, the project's on top."""
    return {**load_user_settings().judges, **load_settings(layout).judges}


def resolve_profile(
    layout: Layout,
    *,
    profile: str | None = None,
    sets: Sequence[str] = (),
    flags: Mapping[str, Any] | None = None,
    swept: Mapping[str, Any] | None = None,
    origin: str = "the sweep",
    carried: Carried | None = None,
    subjects: int = 1,
) -> tuple[str, Profile]:
    """The profile's name and the settings that hold for a run that teaches so many subjects.

    The steps of a shipped profile are those of one subject; what a person set is taken as it stands.

    `sets` are "key=value" texts, `flags` dotted keys; flags whose value is None were not given. `swept` are the
    settings of a sweep by dotted key, `origin` its name: None is a value there like any other. What is `carried` over
    from a run stands in the place of profile and files, unless a profile is named. Paths that are typed are seen from
    the current folder, those in files from the project's. Raises one ConfigError with every fault.
    """
    settings, user = load_settings(layout), load_user_settings()
    given = {key: value for key, value in (flags or {}).items() if value is not None}
    asked = {**(swept or {}), **given}
    typed = [
        ("--set", with_whole_paths(parse_sets(sets), Path.cwd())),
        (origin, with_whole_paths(swept or {}, layout.root)),
        ("the command line", given),
    ]
    if carried is not None and profile is None:
        # They were resolved from profile and files when that run began.
        return carried.profile_name, _settled(resolve([(carried.origin, carried.settings), *typed]))
    method = asked.get("method")
    if method in DEFAULT_PROFILES[""]:
        check_method(settings.base, method)
    # A method named on the command line or by a sweep asks for the profile made for it, unless a profile is named too.
    kept = None if method else settings.profile or user.profile
    chosen = profile or (kept and whole_profile(kept, layout.root)) or default_profile(settings.base, method)
    own_resolution = {} if settings.resolution is None else {"images.resolution": settings.resolution}
    named = default_profile(settings.base, method) if chosen == AUTO else chosen
    layers = [
        *([] if carried is None else [(carried.origin, {"method": carried.settings["method"]})]),
        (f"profile '{named}'", with_whole_paths(for_subjects(named, subjects), layout.root)),
        ("your settings file", with_whole_paths(user.overrides, layout.root)),
        ("dreambooth.yaml", own_resolution | with_whole_paths(settings.overrides, layout.root)),
        *([] if carried is None else [(carried.origin, carried.adapter)]),
        *typed,
    ]
    found = resolve(layers)
    check_method(settings.base, found.method)
    return chosen, _settled(found)


def whole_profile(name_or_path: str, folder: Path) -> str:
    """A profile as it is named in a file: the path of another one is seen from that folder, not the current one."""
    path = Path(name_or_path).expanduser()
    is_path = path.suffix in (".yaml", ".yml") and not path.is_absolute()
    return str(folder / path) if is_path else name_or_path


def with_whole_paths(layer: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """A layer's settings with every path whole: a run goes on with them from wherever it is resumed."""
    found = flattened(layer)
    paths = {key: found[key] for key in PATHS if found.get(key) and isinstance(found[key], str)}
    return found | {key: str(folder / Path(path).expanduser()) for key, path in paths.items()}


def sampling_settings(profile: Profile, options: Mapping[str, Any]) -> DrawSettings:
    """A profile's `draw` settings with the command line's (None: not given) on top; ConfigError names every fault."""
    from dbcli.diffusion.schedulers.samplers import check_sampler

    given = {f"draw.{key}": value for key, value in options.items() if value is not None}
    if "draw.sampler" in given:
        check_sampler(given["draw.sampler"])
    return resolve([("the run", {"draw": profile.draw.model_dump()}), ("the command line", given)]).draw


def check_samplers(profile: Profile) -> None:
    """Raises ConfigError, naming the setting, for a sampler that does not exist."""
    from dbcli.diffusion.schedulers.samplers import check_sampler

    for key, name in (
        ("draw.sampler", profile.draw.sampler),
        ("prior.sampler", profile.prior.sampler),
        ("probe.sampler", profile.probe.sampler),
    ):
        check_sampler(name, key)


def _settled(profile: Profile) -> Profile:
    """The settings with every random seed settled. Raises ConfigError for a sampler that does not exist."""
    check_samplers(profile)
    for section in ("train", "prior"):
        part = getattr(profile, section)
        if part.seed == RANDOM:
            profile = profile.model_copy(update={section: part.model_copy(update={"seed": settled.value})})
    return profile


def profile_of(layout: Layout, record: RunRecord | None) -> Profile:
    """The settings a run was frozen with; the project's own for the bare base."""
    if record is None:
        return resolve_profile(layout)[1]
    return frozen_profile(record.profile, layout.shown(layout.run_file(record.name)))


def settings_beside(layout: Layout, name: str, profile: Profile) -> tuple[str, dict[str, Change]]:
    """The settings of a run that are not as its profile has them: dotted key -> (the profile's value, the run's).

    Before them the profile they are compared with: the run's own, or where that is `auto`, or a file that is gone or
    cannot stand alone, the shipped one that fits base and method.
    """
    try:
        return name, changed_settings(resolve([("", load_profile(name))]), profile)
    except UsageError:
        usual = default_profile(load_settings(layout).base, profile.method)
        return usual, changed_settings(resolve([("", load_profile(usual))]), profile)


def for_subjects(profile: str, subjects: int) -> dict[str, Any]:
    """A profile's own settings; the steps of a shipped one as often as there are subjects."""
    found = load_profile(profile)
    if profile in shipped_profiles() and "steps" in found.get("train", {}):
        found["train"]["steps"] *= subjects
    return found


def require_extras(profile: Profile) -> None:
    """Raises ConfigError where a setting needs a package that is not installed, with the command that brings it."""
    optimizer = profile.train.optimizer
    package = OPTIMISER_PACKAGES.get(optimizer)
    if package is None or find_spec(package) is not None:
        return
    hint = installing(package)
    if optimizer == "adamw8bit":
        hint += "; or --set train.optimizer=adafactor, which needs no package"
    raise ConfigError(f"train.optimizer is {optimizer}, but {package} is not installed.", hint=hint)
