"""The `parameters` text of a picture read by its format alone, with nothing of this program."""

from __future__ import annotations

import json


def by_the_format(text: str) -> dict[str, str]:
    """The text read by its format, a character at a time: prompts under "Prompt" and "Negative prompt"."""
    *lines, line = text.split("\n")
    found = {"Prompt": lines[0], "Negative prompt": "".join(lines[1:]).removeprefix("Negative prompt: ")}
    parts, is_quoted, is_escaped = [""], False, False
    for character in line:
        if character == "," and not is_quoted:
            parts.append("")
            continue
        is_quoted ^= character == '"' and not is_escaped
        is_escaped = character == "\\" and not is_escaped
        parts[-1] += character
    for part in parts:
        key, value = part.split(": ", 1)
        found[key.strip()] = json.loads(value) if value.startswith('"') else value
    return found
