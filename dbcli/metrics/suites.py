"""Suites of prompts: the shipped ones, one's own files, and which prompts fit a live subject or an object. No torch.

A suite is templates, never finished prompts: `{identifier}` and `{class}` are filled elsewhere, once to draw and once
to score. A shipped suite is a YAML file in `suites/`:

    name: recontextualisation
    task: recontextualisation      # groups prompts in tables and grids
    about: one sentence
    any: [a {identifier} {class} at a bus stop]     # for every subject
    live: [...]                                     # for animals and people
    object: [...]                                   # for things
    fields: [dog]                                   # what else prompts hold in braces: names of subjects
A prompt may also be a mapping {text, label}, where the label stands in grids for a long text.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from dbcli.errors import ConfigError, PromptError
from dbcli.hints import nearest

DEFAULT_SUITE = "quick"
# A longer name is no folder's. One that has to be cut leaves room for what the folder of its scores may add.
MOST_OF_NAME, SHORT_NAME = 64, 40
_LIFELESS = frozenset({"toy", "stuffed", "plush", "teddy", "rubber", "robot", "wooden", "plastic", "ceramic"})
_KINDS = ("any", "live", "object")
_OWN_FIELDS = ("identifier", "class")
_KEYS = frozenset({"name", "task", "about", "fields", *_KINDS})
_FIELD = re.compile(r"\{([^{}]*)\}")


@dataclass(frozen=True)
class SuitePrompt:
    """One template of a suite, its short label for grids, and its task."""

    template: str
    label: str
    task: str


@dataclass(frozen=True)
class Suite:
    """A named set of templates: those for every subject, then those for live subjects or for objects."""

    name: str
    task: str
    about: str
    any: tuple[SuitePrompt, ...]
    live: tuple[SuitePrompt, ...] = ()
    object: tuple[SuitePrompt, ...] = ()

    def prompts_for(self, class_noun: str) -> tuple[SuitePrompt, ...]:
        """The templates that make sense for this class; empty where the suite has none (emotions of a vase)."""
        return self.any + (self.live if is_live(class_noun) else self.object)


def is_live(class_noun: str) -> bool:
    """Whether a class noun names an animal or a person: its last word decides, toys set apart.

    "corgi dog" is live, "dog toy" and "stuffed dog" are not.
    """
    words = re.findall(r"[a-z]+", class_noun.lower())
    return bool(words) and words[-1] in _live_nouns() and not _LIFELESS & set(words)


def is_person(class_noun: str) -> bool:
    """Whether a class noun names a person or a face: its last word decides, toys set apart."""
    words = re.findall(r"[a-z]+", class_noun.lower())
    return bool(words) and words[-1] in _person_nouns() and not _LIFELESS & set(words)


def shipped_suites() -> list[str]:
    """Names of the suites that come with the program, sorted."""
    return sorted(path.stem for path in _shipped_folder().glob("*.yaml"))


def load_suite(name_or_path: str | Path) -> Suite:
    """A shipped suite by name, or a suite from a YAML file, or a list of prompts from a text file.

    Raises ConfigError (a name that does not exist, a file with faults, all of them together) and
    PromptError (a text file without prompts).
    """
    text = str(name_or_path)
    path = Path(name_or_path)
    if path.suffix == ".txt":
        return read_prompts(path)
    if path.suffix in {".yaml", ".yml"}:
        return _read_suite(path)
    if text in shipped_suites():
        return _read_suite(_shipped_folder() / f"{text}.yaml")
    near = nearest(text, shipped_suites())
    guess = f" Did you mean {near}?" if near else ""
    raise ConfigError(
        f"There is no suite called {text!r}.{guess}",
        hint="shipped: " + ", ".join(shipped_suites()) + "; or a path to a .yaml suite or a .txt list of prompts",
    )


def plain_suite(suite: Suite) -> dict[str, Any]:
    """A suite as the mapping of its file: what `load_suite` reads back equal."""
    parts = {kind: getattr(suite, kind) for kind in _KINDS}
    prompts = {
        kind: [{"text": one.template, "label": one.label, "task": one.task} for one in part]
        for kind, part in parts.items()
        if part
    }
    fields = {field for part in parts.values() for one in part for field in _FIELD.findall(one.template)}
    others = sorted(fields - set(_OWN_FIELDS))
    about = {"name": suite.name, "task": suite.task, "about": suite.about}
    return about | ({"fields": others} if others else {}) | prompts


def read_prompts(path: Path) -> Suite:
    """A suite from a text file, one prompt per line; empty lines and lines that begin with # are passed over.

    A line may hold {identifier} and {class}, a subject's name in braces ({dog}), or its words typed out; each is kept
    as it stands. Repeated lines are kept once. Raises PromptError for a missing, unreadable or empty file.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        hint = _files_beside(path, "*.txt") or "one prompt per line, UTF-8"
        raise PromptError(f"There is no prompts file at {path}.", hint=hint) from None
    except (OSError, UnicodeDecodeError) as error:
        raise PromptError(f"{path} cannot be read as UTF-8 text: {error}", hint="one prompt per line") from error
    prompts = list(dict.fromkeys(line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")))
    if not prompts:
        raise PromptError(f"{path} contains no prompt.", hint="write one prompt per line, such as: a {dog} in space")
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).lstrip("-._")
    name = (name if len(name) <= MOST_OF_NAME else name[:SHORT_NAME]).rstrip("-.") or "prompts"
    made = tuple(SuitePrompt(prompt, short_label(prompt), "own prompts") for prompt in prompts)
    return Suite(name, "own prompts", f"prompts read from {path.name}", made)


def short_label(template: str) -> str:
    """What tells a prompt from its neighbours: "a {identifier} {class} in space" becomes "in space".

    Where the two do not stand together the template itself, which is rendered for each subject.
    """
    match = re.fullmatch(r"\s*(?:(?:a|an|the)\s+)?(.*?)\{identifier\}\s*\{class\}(.*)", template)
    if match:
        before, after = (part.strip(" ,.") for part in match.groups())
        short = f"{before} … {after}" if before and after else before or after
    elif "{identifier}" in template or "{class}" in template:
        short = template.strip()  # to be rendered with the subject's words
    else:
        short = _FIELD.sub(r"\1", template).strip()
    return short or "as itself"


@cache
def _live_nouns() -> frozenset[str]:
    """Animals and people, one noun per line."""
    return frozenset((Path(__file__).parent / "live_nouns.txt").read_text(encoding="utf-8").split())


@cache
def _person_nouns() -> frozenset[str]:
    """What a person is called, one noun per line."""
    return frozenset((Path(__file__).parent / "person_nouns.txt").read_text(encoding="utf-8").split())


def _shipped_folder() -> Path:
    return Path(__file__).parent / "suites"


def _files_beside(path: Path, pattern: str) -> str:
    """The files that lie where one was looked for, in words; nothing where there are none."""
    files = sorted(one.name for one in path.parent.glob(pattern) if one.name != "dreambooth.yaml")
    return f"in {path.parent}: {', '.join(files)}" if files else ""


def _read_suite(path: Path) -> Suite:
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        beside = _files_beside(path, "*.y*ml")
        hint = f"shipped: {', '.join(shipped_suites())}" + (f"; {beside}" if beside else "")
        raise ConfigError(f"There is no suite at {path}.", hint=hint) from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} is not a readable YAML suite: {error}") from error
    faults = list(_faults(found))
    if faults:
        raise ConfigError(f"{path} is not a suite:\n" + "\n".join(f"  {fault}" for fault in faults))
    task = str(found.get("task", found["name"]))
    kinds = {kind: tuple(_prompt(entry, task) for entry in found.get(kind) or ()) for kind in _KINDS}
    return Suite(str(found["name"]), task, str(found.get("about", "")), **kinds)


def _prompt(entry: str | Mapping[str, str], task: str) -> SuitePrompt:
    if isinstance(entry, str):
        return SuitePrompt(entry, short_label(entry), task)
    prompt = SuitePrompt(entry["text"], entry.get("label") or short_label(entry["text"]), task)
    return replace(prompt, task=entry.get("task", task))


def _faults(found: Any) -> Iterator[str]:
    """Every fault of a suite's mapping, in words."""
    if not isinstance(found, dict):
        yield "the file must be a mapping with name and any, live or object"
        return
    for key in found:
        if key not in _KEYS:
            yield f"unknown key {key!r} (known: {', '.join(sorted(_KEYS))})"
    if not isinstance(found.get("name"), str) or not re.fullmatch(
        r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", str(found.get("name"))
    ):
        yield f"name: expected letters, digits, '.', '_' or '-', found {found.get('name')!r}"
    if not any(found.get(kind) for kind in _KINDS):
        yield "no prompt under any, live or object"
    fields = found.get("fields") or []
    if not isinstance(fields, list) or not all(isinstance(field, str) for field in fields):
        yield f"fields: expected a list of names, found {fields!r}"
        fields = []
    for kind in _KINDS:
        yield from _prompt_faults(kind, found.get(kind) or [], (*_OWN_FIELDS, *fields))


def _prompt_faults(kind: str, entries: Any, fields: Collection[str]) -> Iterator[str]:
    if not isinstance(entries, list):
        yield f"{kind}: expected a list of prompts, found {type(entries).__name__}"
        return
    for number, entry in enumerate(entries, start=1):
        place = f"{kind}, prompt {number}"
        text = entry.get("text") if isinstance(entry, dict) else entry
        if isinstance(entry, dict) and not set(entry) <= {"text", "label", "task"}:
            yield f"{place}: unknown key {sorted(set(entry) - {'text', 'label', 'task'})}"
        if isinstance(entry, dict) and not all(isinstance(part, str) for part in entry.values()):
            yield f"{place}: text, label and task must be text"
        if not isinstance(text, str) or not text.strip():
            yield f"{place}: expected text, found {text!r} (quote a prompt that contains ': ' or begins with {{)"
            continue
        for field in _FIELD.findall(text):
            if field not in fields:
                known = ", ".join(f"{{{one}}}" for one in fields)
                yield f"{place}: unknown field {{{field}}} (known: {known})"
