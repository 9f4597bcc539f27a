"""Profiles: layers of settings made one.

A profile is resolved from layers (shipped profile, user file, project file, `--set`, flags); the later wins.
"""

import difflib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from dbcli.errors import ConfigError, DataError, UsageError
from dbcli.hints import nearest
from dbcli.project.files.names import printable
from dbcli.project.files.records import fault_text
from dbcli.project.files.yaml_files import parse_value, read_yaml
from dbcli.project.settings.combinations import contradictions
from dbcli.project.settings.profile_settings import FROZEN, Profile, Section

# Earlier names of settings, which files and command lines may still say.
EARLIER_NAMES = {"images.template": "images.templates"}
# What Kohya's and diffusers' trainers call settings.
NAMES_ELSEWHERE = {
    "lr": "train.learning_rate",
    "unet_lr": "train.learning_rate",
    "text_encoder_lr": "train.text_encoder_learning_rate",
    "lr_scheduler": "train.schedule",
    "lr_warmup_steps": "train.warmup_steps",
    "max_train_steps": "train.steps",
    "train_batch_size": "train.batch_size",
    "gradient_accumulation_steps": "train.accumulation",
    "mixed_precision": "train.precision",
    "network_dim": "lora.rank",
    "network_alpha": "lora.alpha",
}
# What is asked for as a method or a kind, and is a setting of a LoRA.
FORMS_OF_LORA = {
    "lokr": "lora.kind=lokr",
    "loha": "lora.kind=loha",
    "dora": "lora.dora=true",
    "rslora": "lora.rslora=true",
    "pissa": "lora.init=pissa",
}
# What a run was begun with that knows nothing of several sentences: class images under one prompt, every caption used.
ONE_SENTENCE = {"prior": {"template": "a photo of a {class}"}, "images": {"caption_share": 1.0}}


def shipped_profiles() -> list[str]:
    """Return the names of the profiles that come with the program, sorted."""
    return sorted(path.stem for path in shipped_folder().glob("*.yaml"))


def load_profile(name_or_path: str | Path) -> dict[str, Any]:
    """Return a profile's own settings, unresolved: a shipped name, or the path of a YAML file.

    Raises UsageError for a name that is not shipped, ConfigError for a faulty file.
    """
    return read_yaml(shipped_or_own_file(str(name_or_path), "profile", shipped_folder()))


def shipped_or_own_file(text: str, what: str, folder: Path) -> Path:
    """Return the file that ships in `folder` under a name, or a person's own YAML file by its path.

    Raises UsageError, calling it `what`, with the nearest name and the files that lie where one was looked for.
    """
    names = sorted(path.stem for path in folder.glob("*.yaml"))
    path = folder / f"{text}.yaml" if text in names else Path(text).expanduser()
    if path.is_file():
        return path
    is_path = path.suffix in (".yaml", ".yml")
    beside = path.parent if is_path else Path(".")
    own = sorted(one.name for one in beside.glob("*.y*ml") if one.name != "dreambooth.yaml")
    hint = f"shipped: {', '.join(names)}" + (
        f"; in {beside}: {', '.join(own)}" if own else "; or a path to a .yaml file"
    )
    if is_path:
        raise UsageError(f"The {what} {printable(text)} does not exist.", hint=hint)
    near = nearest(text, names)
    guess = f" Did you mean '{near}'?" if near else ""
    raise UsageError(f"There is no {what} '{printable(text)}'.{guess}", hint=hint)


def resolve(layers: Sequence[tuple[str, Mapping[str, Any]]]) -> Profile:
    """Return the profile that the layers make together, defaults first, the last layer winning.

    A layer is a name for messages ("--set", "profile 'lora'") and a mapping, nested or with dotted keys.
    Raises one ConfigError with every fault of every layer: the layer, the dotted key, the value found.
    """
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    problems: list[str] = []
    hint = None
    known = known_keys()
    for origin, layer in layers:
        for key, value in _flat(layer, known):
            if key in known:
                values[key], origins[key] = value, origin
            else:
                problems.append(_unknown(origin, key, known))
    try:
        profile = Profile.model_validate(_nested(values))
    except ValidationError as error:
        faults = error.errors(include_url=False)
        problems += [_fault_of(fault, origins) for fault in faults]
        hint = next(filter(None, map(_form_meant, faults)), None)
    else:
        problems += contradictions(profile)
    if problems:
        many = f"{len(problems)} faults" if len(problems) > 1 else "a fault"
        raise ConfigError(f"The settings have {many}:\n" + "\n".join(f"  {line}" for line in problems), hint)
    return profile


def frozen_profile(values: Mapping[str, Any], where: str) -> Profile:
    """Return the settings a run was frozen with; `where` names its record in the DataError for faulty ones."""
    settings = {key: value for key, value in values.items() if key != "name"}
    for section in ("prior", "draw"):
        # Runs made before there was a choice of timesteps go on with those they began with.
        if isinstance(settings.get(section), dict):
            settings[section] = {"timesteps": "published", **settings[section]}
    if "templates" not in (settings.get("images") or {}):
        for section, before in ONE_SENTENCE.items():
            if isinstance(settings.get(section, {}), dict):
                settings[section] = before | settings.get(section, {})
    try:
        return Profile.model_validate(settings, context=FROZEN)
    except ValidationError as error:
        lines = "\n".join(f"  {_fault_of(fault, {})}" for fault in error.errors(include_url=False))
        raise DataError(f"The settings in {where} have faults:\n{lines}") from error


def parse_set(text: str) -> tuple[str, Any]:
    """Return the dotted key and the value of a `--set key=value`; the value is read as YAML.

    Raises UsageError without a `=`, ConfigError for a key that does not exist or a value that is not YAML.
    """
    (key, value), known = _split(text), known_keys()
    if key not in known:
        raise _single_fault(_unknown("--set", key, known))
    return key, value


def parse_sets(texts: Iterable[str]) -> dict[str, Any]:
    """Return the settings of all `--set key=value`; a key that does not exist is left for `resolve` to tell.

    So that it comes together with all other faults. Raises UsageError without a `=`, ConfigError for a section or a
    value that is not YAML.
    """
    found, known = dict(map(_split, texts)), known_keys()
    for key in found:
        if _is_section(key, known):
            raise _single_fault(_unknown("--set", key, known))
    return found


def known_keys() -> dict[str, str]:
    """Return every dotted key of a profile, in order, with its one-line description."""
    keys: dict[str, str] = {}
    for name, field in Profile.model_fields.items():
        section = field.annotation
        if isinstance(section, type) and issubclass(section, Section):
            for inner, inner_field in section.model_fields.items():
                keys[f"{name}.{inner}"] = inner_field.description or ""
        else:
            keys[name] = field.description or ""
    return keys


def flattened(layer: Mapping[str, Any]) -> dict[str, Any]:
    """Return a layer's settings by dotted key, whether it was nested or dotted; unknown keys stay as they are."""
    return dict(_flat(layer, known_keys()))


def shipped_folder() -> Path:
    """Return where the shipped profiles lie: in the package, or beside it in a checkout."""
    package = Path(str(resources.files("dbcli")))
    packaged = package / "project" / "shipped_profiles"
    return packaged if packaged.is_dir() else package.parent / "profiles"


def _split(text: str) -> tuple[str, Any]:
    key, separator, value = text.partition("=")
    key = key.strip()
    if not separator or not key:
        raise UsageError(
            f"--set takes key=value, not '{printable(text)}'.",
            hint="for example --set train.learning_rate=5e-6",
        )
    return EARLIER_NAMES.get(key, key), parse_value(value, f"--set {key}")


def _flat(layer: Mapping[str, Any], known: Mapping[str, str], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in layer.items():
        key = EARLIER_NAMES.get(f"{prefix}{name}", f"{prefix}{name}")
        is_section = _is_section(key, known)
        if is_section and isinstance(value, Mapping):
            yield from _flat(value, known, key + ".")
        elif not (is_section and value is None):  # `train:` with nothing under it sets nothing
            yield key, value


def _nested(values: Mapping[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for key, value in values.items():
        section, _, name = key.rpartition(".")
        (tree.setdefault(section, {}) if section else tree)[name] = value
    return tree


def _unknown(origin: str, key: str, known: Mapping[str, str]) -> str:
    if _is_section(key, known):
        return f"{key} (from {origin}): is a section; set its keys, such as {_first_of(key, known)}"
    near = nearest_key(key, known)
    text = f"{printable(key)} (from {origin}): is not a setting"
    return text + (f"; did you mean {near}?" if near else "")


def _single_fault(text: str) -> ConfigError:
    """A fault as a sentence of its own, which may end in a question."""
    return ConfigError(text if text.endswith("?") else f"{text}.")


def _is_section(key: str, known: Iterable[str]) -> bool:
    return any(other.startswith(key + ".") for other in known)


def nearest_key(key: str, known: Collection[str]) -> str | None:
    """Return the dotted key that was most likely meant, by the whole of it or by its last part; None without one.

    What other trainers call a setting means that setting, whatever else is spelt alike.
    """
    elsewhere = NAMES_ELSEWHERE.get(key.rpartition(".")[2])
    if elsewhere in known:
        return elsewhere
    leaves = {other.rpartition(".")[2]: other for other in known}
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.7)
    near = near or [leaves[leaf] for leaf in difflib.get_close_matches(key.rpartition(".")[2], list(leaves), n=1)]
    return near[0] if near else None


def _first_of(section: str, known: Mapping[str, str]) -> str:
    return next(key for key in known if key.startswith(section + "."))


def _form_meant(fault: Any) -> str | None:
    """What to type where a form of LoRA was asked for as if it were a method, a kind or a beginning of its own."""
    setting = FORMS_OF_LORA.get(str(fault.get("input")).casefold())
    is_named = ".".join(map(str, fault["loc"])) in ("method", "lora.kind", "lora.init")
    return f"--method lora --set {setting}" if setting is not None and is_named else None


def _fault_of(fault: Any, origins: Mapping[str, str]) -> str:
    parts = [str(part) for part in fault["loc"]]
    key = ".".join(parts[:2]) if ".".join(parts[:2]) in origins else ".".join(parts[:1])
    place = f" (from {origins[key]})" if key in origins else ""
    return f"{'.'.join(parts)}{place}: {fault_text(fault['type'], fault['msg'], fault.get('input'))}"
