"""Judges by name.

`dino` (ViT-S/16, timm), `clip` (ViT-B/32, OpenAI weights, open_clip) and `clip-l` (ViT-L/14) are fetched from the hub
or read from a local copy; `tiny-dino` and `tiny-clip` are embedded.
"""

from collections.abc import Mapping

from dbcli.errors import UsageError
from dbcli.metrics.judges import architectures, embedded
from dbcli.metrics.judges.files import locate, reading, sha256_of
from dbcli.metrics.judges.judge import Judge, Judges

HUB_SOURCES = {
    "dino": "timm/vit_small_patch16_224.dino",
    "clip": "timm/vit_base_patch32_clip_224.openai",
    "clip-l": "timm/vit_large_patch14_clip_224.openai",
}
JUDGE_SETS: dict[str, tuple[str, ...]] = {
    "paper": ("dino", "clip"),
    "paper-l": ("dino", "clip", "clip-l"),
    "tiny": ("tiny-dino", "tiny-clip"),
}


def load_judges(
    name: str = "paper",
    *,
    sources: Mapping[str, str] | None = None,
    offline: bool = False,
    device: str = "cpu",
) -> Judges:
    """A named set of judges: `paper`, `paper-l` (with ViT-L/14) or `tiny` (embedded).

    `sources` maps a judge's name to a local path or hub id. Raises UsageError for a name that does not exist,
    JudgeMissing for a judge that cannot be had.
    """
    if name not in JUDGE_SETS:
        raise UsageError(f"There is no judge {name!r}.", hint="--judge " + "|".join(JUDGE_SETS))
    kinds = JUDGE_SETS[name]
    found = [load_judge(kind, (sources or {}).get(kind), offline=offline, device=device) for kind in kinds]
    return Judges(found[0], found[1], found[2] if len(found) > 2 else None)


def load_judge(kind: str, source: str | None = None, *, offline: bool = False, device: str = "cpu") -> Judge:
    """One judge by kind: `dino`, `clip`, `clip-l`, `tiny-dino`, `tiny-clip`.

    `source` is a local file, a local folder or a hub id with an optional @revision; None takes the kind's own. Raises
    UsageError (no such kind) and JudgeMissing (not there, unreachable, or not this kind's weights).
    """
    if kind not in {*HUB_SOURCES, *embedded.KINDS}:
        raise UsageError(f"There is no judge {kind!r}.", hint=", ".join([*HUB_SOURCES, *embedded.KINDS]))
    if kind in embedded.KINDS:
        files, build = embedded.locate(kind, source), embedded.build
    else:
        files, build = locate(kind, source or HUB_SOURCES[kind], offline=offline), architectures.build
    with reading(files, kind, f"the judge {kind!r}"):
        return Judge(kind, files, build(kind, files, device), device, sha256_of(files.weights))
