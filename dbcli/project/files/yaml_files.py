"""YAML as people mean it: `5e-6` is a number, `no` is a word, and a key given twice is a mistake."""

import re
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import yaml
from yaml.composer import Composer

from dbcli.errors import ConfigError
from dbcli.project.files.atomic import write_text
from dbcli.project.files.names import printable

MAX_BYTES = 1_000_000

# The YAML 1.2 core schema, instead of PyYAML's YAML 1.1 with its sexagesimals, dates, octals and yes/no.
_BOOL = re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$")
_NULL = re.compile(r"^(?:~|null|Null|NULL|)$")
_INT = re.compile(r"^(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)$")
_FLOAT = re.compile(
    r"^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
    r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
)
_RESOLVERS = (
    ("tag:yaml.org,2002:bool", _BOOL, "tTfF"),
    ("tag:yaml.org,2002:null", _NULL, ["~", "n", "N", ""]),
    ("tag:yaml.org,2002:int", _INT, "-+0123456789"),
    ("tag:yaml.org,2002:float", _FLOAT, "-+.0123456789"),
)


if yaml.__with_libyaml__:

    class _Loader(Composer, yaml.CSafeLoader):
        """PyYAML's safe loader on libyaml's parser, the slow part; nodes are composed in Python, as below."""

        def __init__(self, stream: str) -> None:
            yaml.CSafeLoader.__init__(self, stream)
            Composer.__init__(self)

else:
    _Loader = yaml.SafeLoader  # type: ignore[assignment,misc]  # PyYAML was built without libyaml


class _StrictLoader(_Loader):
    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        # Nothing here needs references, and nested ones can grow a small file without end.
        if self.check_event(yaml.AliasEvent):
            alias: Any = self.get_event()
            message = "references (*name) are not supported"
            raise yaml.constructor.ConstructorError(None, None, message, alias.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is not text; put it in quotes", key_node.start_mark
                )
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key '{printable(key)}' is given twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep=deep)

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        text = str(self.construct_scalar(node))
        return int(text, 0) if text[:2] in ("0o", "0x") else int(text)

    def construct_yaml_float(self, node: yaml.ScalarNode) -> float:
        return float(str(self.construct_scalar(node)).lower().replace(".inf", "inf").replace(".nan", "nan"))


class _StrictDumper(yaml.SafeDumper):
    """Quotes whatever this loader or a YAML 1.1 reader would take for something other than text."""

    yaml_implicit_resolvers = {
        first: list(resolvers) for first, resolvers in yaml.SafeDumper.yaml_implicit_resolvers.items()
    }

    def ignore_aliases(self, data: Any) -> bool:
        return True


for _tag, _pattern, _first in _RESOLVERS:
    _StrictLoader.add_implicit_resolver(_tag, _pattern, list(_first))
    _StrictDumper.add_implicit_resolver(_tag, _pattern, list(_first))
_StrictLoader.add_constructor("tag:yaml.org,2002:int", _StrictLoader.construct_yaml_int)
_StrictLoader.add_constructor("tag:yaml.org,2002:float", _StrictLoader.construct_yaml_float)


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping in a YAML file; an empty file is an empty mapping.

    Raises ConfigError, naming the file and the line, for anything that is not plain, unambiguous YAML.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ConfigError(f"{path} is larger than {MAX_BYTES:,} bytes; that is too large for a settings file.")
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not text in UTF-8 (byte {error.start}).") from error
    value = _parse(text, str(path))
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ConfigError(f"{path} should contain 'key: value' lines, but is a {_kind(value)}.")
    return value


def parse_value(text: str, where: str) -> Any:
    """Return one value written as YAML (`5e-6`, `true`, `[a, b]`); `where` is named in a ConfigError."""
    return _parse(text, where)


def write_yaml(path: Path, obj: Mapping[str, Any]) -> None:
    """Replace `path` by `obj` as YAML that `read_yaml` gives back unchanged, keys in their given order."""
    text = yaml.dump(dict(obj), Dumper=_StrictDumper, sort_keys=False, allow_unicode=True, width=1000)
    write_text(path, text)


def _parse(text: str, where: str) -> Any:
    try:
        return yaml.load(text, Loader=_StrictLoader)  # a SafeLoader: it builds plain values only
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f", line {mark.line + 1}" if mark else ""
        problem = printable(str(error.problem or error.context or "not valid YAML"), 200)
        raise ConfigError(f"{where}{line}: {problem}.") from error
    except (yaml.YAMLError, ValueError) as error:
        problem = printable(str(error).splitlines()[0], 200)
        raise ConfigError(f"{where}: {problem}.") from error
    except RecursionError as error:
        raise ConfigError(f"{where}: nested too deeply.") from error


def _kind(value: Any) -> str:
    return {list: "list", str: "text", bool: "true/false value"}.get(type(value), "single value")
