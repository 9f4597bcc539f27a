"""One self-contained HTML page: no script, no network, images inside, light and dark, wide and narrow.

A page is a list of sections, each a list of blocks (facts, table, gallery, chart, text). Everything a
person typed goes through jinja2's autoescape; nothing is ever marked safe.
"""

import base64
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

from PIL import Image

from dbcli.counts import counted
from dbcli.reports.tables import Table, format_score, prompt_table, subject_table

TILE_PX = 256
# The scores that stand beside the images of a prompt.
NOTED, NOTED_SHARES = (("dino", "DINO"), ("clip_i", "CLIP-I"), ("clip_t", "CLIP-T")), ("identified", "scene")
# Those of faces, where they were scored.
NOTED_FACES = (("face", "FACE"), ("face_found", "face found"), ("same_person", "same person"))
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff\ud800-\udfff]"
)


@dataclass(frozen=True)
class Facts:
    """Names with their values: a run's settings, a judge's description."""

    items: tuple[tuple[str, str], ...]
    kind: str = "facts"


@dataclass(frozen=True)
class Text:
    """A paragraph; `is_warning` sets it apart."""

    text: str
    is_warning: bool = False
    kind: str = "text"


@dataclass(frozen=True)
class PageImage:
    """An image inside the page with the words that stand for it."""

    source: str
    alt: str
    width: int
    height: int
    caption: str = ""


@dataclass(frozen=True)
class ImageRow:
    """One labelled strip of images: `note` stands small beneath the label, `captions` under the images, one each."""

    label: str
    images: Sequence[Image.Image]
    note: str = ""
    is_photos: bool = False
    captions: Sequence[str] = ()


@dataclass(frozen=True)
class Gallery:
    """Labelled strips of images; `name` says what a strip shows."""

    name: str
    rows: Sequence[ImageRow]
    kind: str = "gallery"


@dataclass(frozen=True)
class Chart:
    """A chart in a light and a dark coat."""

    light: str
    dark: str
    alt: str
    caption: str = ""
    kind: str = "chart"


Block = Facts | Text | Table | Gallery | Chart


@dataclass(frozen=True)
class PageSection:
    """A heading with its blocks."""

    title: str
    blocks: tuple[Block, ...]


def render_page(title: str, sections: Sequence[PageSection], *, lead: str = "", foot: str = "") -> str:
    """The whole page as text, to be written as UTF-8."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    page = environment.get_template("page.html")
    return page.render(title=title, sections=sections, lead=lead, foot=foot, tiles=_tiles)


def _shown(value: object) -> object:
    """Text without the marks that turn the direction of what follows, and without control characters."""
    return _UNSEEN.sub("", value) if type(value) is str else value


def _tiles(row: ImageRow) -> Iterator[PageImage]:
    """A row's images, each made small enough for a page; alt texts come from the labels."""
    for number, (image, caption) in enumerate(zip_longest(row.images, row.captions[: len(row.images)]), start=1):
        alt = f"{row.label}, {caption or f'{number} of {len(row.images)}'}"
        yield replace(embedded_image(image, alt), caption=caption or "")


def embedded_image(image: Image.Image, alt: str) -> PageImage:
    """An image as a data URI, no side above TILE_PX: PNG where it is small, WebP elsewhere; nothing of its EXIF."""
    shown = image.convert("RGBA" if image.mode in {"RGBA", "LA", "PA"} else "RGB")
    if max(shown.size) > TILE_PX:
        shown.thumbnail((TILE_PX, TILE_PX), Image.Resampling.LANCZOS)
    shown.info.clear()
    buffer = io.BytesIO()
    small = max(shown.size) <= 96
    shown.save(buffer, "PNG" if small else "WEBP", **({"optimize": True} if small else {"quality": 86, "method": 4}))
    return PageImage(_data_uri(buffer.getvalue(), "image/png" if small else "image/webp"), alt, *shown.size)


def embedded_chart(light: bytes, dark: bytes, *, alt: str, caption: str = "") -> Chart:
    """A chart's PNG bytes (of charts.py) as a block."""
    return Chart(_data_uri(light, "image/png"), _data_uri(dark, "image/png"), alt, caption)


def _data_uri(content: bytes, mime: str) -> str:
    return f"data:{mime};base64,{base64.b64encode(content).decode('ascii')}"


def image_sections(galleries: Sequence[tuple[str, Sequence[ImageRow]]]) -> list[PageSection]:
    """The section of all images by the name of their strips; none without any."""
    return [PageSection("Images", tuple(Gallery(name, rows) for name, rows in galleries))] if galleries else []


def evaluation_page(
    scores: Mapping[str, Any],
    *,
    title: str,
    facts: Sequence[tuple[str, str]] = (),
    galleries: Sequence[tuple[str, Sequence[ImageRow]]] = (),
    charts: Sequence[Chart] = (),
    foot: str = "",
) -> str:
    """The report of one evaluation from its scores.json, with images by task and the charts of its run.

    `galleries` are (name, rows) pairs, photos first; a row's note may carry its scores (`prompt_note`).
    """
    sections = [PageSection("Scores", _score_blocks(scores)), *image_sections(galleries)]
    per_prompt = tuple(prompt_table(subject) for subject in scores["subjects"])
    if per_prompt:
        sections.append(PageSection("Per prompt", per_prompt))
    if charts:
        sections.append(PageSection("Curves", tuple(charts)))
    if facts:
        sections.append(PageSection("Run", (Facts(tuple(facts)),)))
    sections.append(PageSection("How it was measured", protocol_blocks(scores["protocol"])))
    return render_page(title, sections, lead=_lead(scores), foot=foot)


def prompt_note(prompt: Mapping[str, Any]) -> str:
    """A prompt's scores in few words, for beside its images."""
    scores = prompt["scores"]
    known = [f"{title} {format_score(scores.get(metric))}" for metric, title in NOTED]
    known += [f"{metric} {format_score(scores[metric], metric)}" for metric in NOTED_SHARES if metric in scores]
    known += [f"{title} {format_score(scores[metric], metric)}" for metric, title in NOTED_FACES if metric in scores]
    return " · ".join(known) + (" · copies the photos" if prompt["copying"] else "")


def _lead(scores: Mapping[str, Any]) -> str:
    images = sum(subject["images"] for subject in scores["subjects"])
    prompts = sum(len(subject["prompts"]) for subject in scores["subjects"])
    names = [subject["name"] for subject in scores["subjects"]]
    who = ", ".join(names) if len(names) <= 4 else f"{len(names)} subjects"
    return f"{who}: {counted(prompts, 'prompt')}, {counted(images, 'image')}, beside the photos' own values."


def _score_blocks(scores: Mapping[str, Any]) -> tuple[Block, ...]:
    copying = (subject for subject in scores["subjects"] if subject["copying"])
    warnings = [_copying_warning(subject) for subject in copying]
    warnings += [Text(note, is_warning=True) for subject in scores["subjects"] if (note := subject.get("face_note"))]
    for part, texts in scores.get("texts_cut_short", {}).items():
        quoted = ", ".join(f"“{text}”" for text in texts)
        warnings.append(Text(f"Too long for the judge {part}, only the beginning is scored: {quoted}", is_warning=True))
    return (*verdict_blocks(scores), *warnings, subject_table(scores))


def verdict_blocks(scores: Mapping[str, Any], name: str = "") -> list[Text]:
    """What is said of each subject in words, after the run's name where there are several runs."""
    before = f"{name}: " if name else ""
    return [Text(before + found["text"]) for subject in scores["subjects"] if (found := subject.get("verdict"))]


def _copying_warning(subject: Mapping[str, Any]) -> Text:
    copies = (subject["scores"].get("copies") or {}).get("value")
    share = "The images" if copies is None else f"{format_score(copies, 'copies')} of the images"
    return Text(
        f"{subject['name']}: {share} repeat the photos: they are nearer to one of them than any two photos are to each "
        "other. An earlier checkpoint or fewer steps may follow prompts better.",
        is_warning=True,
    )


def protocol_blocks(protocol: Mapping[str, Any]) -> tuple[Block, ...]:
    """How scores were measured, from the protocol that stands in their scores.json."""
    removed = protocol["identifier_removed_from_scoring_text"]
    intervals = protocol["intervals"]
    how = f"{intervals['method']}, {intervals['resamples']} draws"
    general = (
        ("Scale", protocol["scale"]),
        ("Mean", protocol["mean"]),
        ("Text that is scored", "without the identifier" if removed else "with the identifier"),
        ("Real-real", protocol["real"]),
        ("Background", f"masked ({protocol['masked']})" if protocol["masked"] else "left in"),
        ("Intervals", f"{intervals['level']:.0%} over {intervals['over']}; {how}"),
    )
    rows = tuple(
        (score["title"], protocol["judges"][score["judge"]]["model"], score["pairing"], f"{score['better']} is better")
        for score in protocol["scores"].values()
        if score["judge"] in protocol["judges"]
    )
    judges = tuple(_judge_table(part, judge) for part, judge in protocol["judges"].items())
    return (
        Facts(general),
        Table(("score", "judge", "pairing", ""), rows, "What each score compares", False),
        *judges,
    )


def _judge_table(part: str, judge: Mapping[str, Any]) -> Table:
    preprocessing = "; ".join(f"{key.replace('_', ' ')} {value}" for key, value in judge["preprocessing"].items())
    rows = [(key.replace("_", " "), "–" if value is None else str(value)) for key, value in judge.items()]
    rows = [row for row in rows if row[0] != "preprocessing"] + [("preprocessing", preprocessing)]
    return Table(("judge", part), tuple(rows), f"Judge for {part}: {judge['model']}", False)
