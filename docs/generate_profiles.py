"""Writes docs/profiles.md: every setting with its default and meaning, and the shipped profiles with their reasons.

python docs/generate_profiles.py
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

PAGE = Path(__file__).parent / "profiles.md"
PROFILES = Path(__file__).resolve().parent.parent / "profiles"
HEAD = """# Profiles

A profile is a file of settings. The program ships a few, chosen by base and method where you choose nothing; any
setting can be changed without writing a file:

```
dreambooth train --subject dog --token sks --set train.learning_rate=2e-6 --set prior.images=200
```

What holds is settled in this order, the later winning: the profile, your own settings file
(`~/.config/dreambooth/settings.yaml` on Linux), the project's `dreambooth.yaml`, `--set`, and last the options with a
name of their own (`--steps`, `--method`, `--seed`). The result is frozen into the run, so a later change of a profile
changes no run that exists.

`--method` also chooses the profile: without `--profile`, the shipped profile of that method for the project's base
replaces the `profile:` of both files, while their `overrides:` stay in force. `dreambooth train --set method=lora`
changes the method and keeps the profile. In `bench` and in a sweep a method chooses the profile however it is given,
unless a profile is named there, too; `import-lora` and `import-embedding` take the profile of the file's method. With
`--from` and no `--profile`, the settings of that run stand in place of profile and files.

To see what would hold, without training:

```
dreambooth train --subject dog --token sks --dry-run
```

In `dreambooth.yaml` and in your own settings file, settings stand under `overrides:`, with the same keys as in a
profile, and the default profile beside it:

```yaml
profile: lora
overrides:
  train:
    steps: 600
```

The keys of the two files:

| key | in | meaning |
|---|---|---|
| `profile` | both | the default profile: a shipped name, a file or `auto` |
| `overrides` | both | settings of a profile, nested or dotted (`train.steps: 600`) |
| `judges` | both | where models that look at images are: a local folder or a hub id for each name ({judges}) |
| `base` | both | your own file: the base that `init` takes by default; `dreambooth.yaml`: the project's base |
| `resolution` | `dreambooth.yaml` | pixels per side; the base's own if left out |
| `revision`, `base_hash`, `prediction_type`, `vae`, `vae_hash` | `dreambooth.yaml` | its details, written for you |

A profile of your own is a YAML file with the same keys, only those you want to change; everything else keeps its
default:

```yaml
# mine.yaml
method: lora
train:
  steps: 600
  learning_rate: 5e-5
```

```
dreambooth train --subject dog --token sks --profile mine.yaml
```

A key that does not exist, a value outside its range and a number in quotes are all refused, together, before anything
is trained.

## The shipped profiles

| profile | for | method | steps | learning rate | class images |
|---|---|---|---|---|---|
{table}

The comment beside each value is the reason for it.

{profiles}
## Every setting

{keys}
Page written by `make docs`; a test compares it with the program.
"""
SECTIONS = {
    "": "Which method",
    "train": "Training",
    "prior": "Prior preservation",
    "lora": "LoRA adapters",
    "inversion": "Textual inversion",
    "images": "Photos",
    "draw": "Drawing",
    "probe": "Probes in training",
}
PURPOSES = {
    "full": "Stable Diffusion 1.x and 2.x on a GPU of 24 GB or more",
    "lora": "the same on less memory; a small file to share",
    "paper": "what the paper says, as far as it says it",
    "tiny": "the embedded base, on a CPU",
    "textual-inversion": "a new word and nothing else; a file of kilobytes",
    "tiny-lora": "adapters on the embedded base",
    "tiny-xl-textual-inversion": "new vectors on `tiny-xl`, for both text encoders",
    "tiny-flow-lora": "adapters on `tiny-flow`, the embedded base under flow matching",
    "zimage-lora": "adapters on Z-Image, a flow-matching transformer",
    "sdxl-lora": "adapters on Stable Diffusion XL",
    "sdxl-full": "every weight of Stable Diffusion XL, in little memory",
    "tiny-textual-inversion": "a new word on the embedded base",
}


def text() -> str:
    """The whole page."""
    from dbcli.project.settings.project_settings import JUDGE_NAMES

    page = HEAD.replace("{judges}", ", ".join(f"`{name}`" for name in JUDGE_NAMES))
    return page.replace("{table}", _table()).replace("{profiles}", _files()).replace("{keys}", "".join(_keys()))


def _table() -> str:
    from dbcli.project.settings.profiles import load_profile, resolve, shipped_profiles

    lines = []
    for name in shipped_profiles():
        one = resolve([(name, load_profile(name))])
        rate = re.sub(r"\.?0*e-0?", "e-", f"{one.train.learning_rate:.3e}")
        images = one.prior.images if one.prior.enabled else "–"
        purpose = PURPOSES.get(name, "see its comments")
        lines.append(f"| `{name}` | {purpose} | {one.method} | {one.train.steps} | {rate} | {images} |")
    return "\n".join(lines)


def _files() -> str:
    from dbcli.project.settings.profiles import shipped_profiles

    parts = []
    for name in shipped_profiles():
        content = (PROFILES / f"{name}.yaml").read_text(encoding="utf-8").strip()
        parts.append(f"### {name}\n\n```yaml\n{content}\n```\n")
    return "\n".join(parts)


def _keys() -> Iterator[str]:
    from dbcli.project.settings.profile_settings import Profile
    from dbcli.project.settings.profiles import known_keys

    defaults = Profile().model_dump(mode="json")
    section_before: str | None = None
    for key, meaning in known_keys().items():
        section, _, name = key.rpartition(".")
        if section != section_before:
            yield f"{'' if section_before is None else chr(10)}### {SECTIONS.get(section, section)}\n\n"
            yield "| setting | default | meaning |\n|---|---|---|\n"
            section_before = section
        value = (defaults[section] if section else defaults)[name]
        shown = json.dumps(value, ensure_ascii=False) if value is not None else "none"
        yield f"| `{key}` | `{shown}` | {meaning} |\n"
    yield "\n"


def main() -> None:
    made = text()
    if "--check" in sys.argv:
        sys.exit(0 if PAGE.read_text(encoding="utf-8") == made else "docs/profiles.md is old: make docs")
    PAGE.write_text(made, encoding="utf-8")


if __name__ == "__main__":
    main()
