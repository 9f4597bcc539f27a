"""The page: parsed as a browser would, it loads nothing, runs nothing and says everything."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser

import pytest
from PIL import Image

from dbcli.reports.charts import loss_curve
from dbcli.reports.page import (
    Facts,
    Gallery,
    ImageRow,
    PageSection,
    Text,
    embedded_chart,
    embedded_image,
    evaluation_page,
    prompt_note,
    render_page,
)
from dbcli.reports.tables import Table
from tests.reports.score_makers import made_scores

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</style><script>alert(1)</script>",
    "</title><svg onload=alert(1)>",
    "{{ 7 * 7 }} {% raw %}",
    "<!-- --> & ' \" javascript:alert(1)",
    "\u202edog\x00\ud83d",
]
EVENTS = [{"step": step, "subject_loss": 1 / step} for step in range(1, 30)]


class Elements(HTMLParser):
    """Every element with its attributes, and the text outside style."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.inside = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, {name: value or "" for name, value in attrs}))
        self.inside = tag

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""

    def handle_data(self, data: str) -> None:
        if self.inside != "style":
            self.text += data

    def of(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.found if name == tag]


def page_with(text: str) -> Elements:
    rows = [ImageRow(text, [Image.new("RGB", (300, 200), "teal")], note=text, is_photos=True)]
    chart = embedded_chart(loss_curve(EVENTS), loss_curve(EVENTS, coat="dark"), alt=text, caption=text)
    return Elements(
        evaluation_page(
            made_scores(text, copying=True),
            title=text,
            facts=[(text, text)],
            galleries=[(text, rows)],
            charts=[chart],
            foot=text,
        )  # fmt: skip
    )


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_stays_text(text: str) -> None:
    page = page_with(text)
    assert not page.of("script") and not page.of("svg") and not page.of("iframe")
    for tag, attributes in page.found:
        assert not [name for name in attributes if name.startswith("on")], tag
        for name in ("src", "srcset", "href"):
            assert attributes.get(name, "#").startswith(("data:image/", "#")), (tag, attributes)
    seen = re.sub("[\u202e\x00\ud83d]", "", text)
    assert seen in page.text
    assert not set(page.text) & set("\u202e\x00\ud83d")
    assert len(page.of("style")) == 1


def test_the_page_forbids_scripts_and_connections() -> None:
    metas = {meta.get("http-equiv"): meta.get("content", "") for meta in page_with("dog").of("meta")}
    assert metas["Content-Security-Policy"].startswith("default-src 'none'; img-src data:")


def test_every_picture_has_words_and_a_size() -> None:
    page = page_with("a sks dog in space")
    images = page.of("img")
    assert len(images) == 2
    assert all(image["alt"].strip() for image in images)
    assert images[0]["alt"] == "a sks dog in space, 1 of 1"
    assert (images[0]["width"], images[0]["height"]) == ("256", "171")


def test_scrolling_parts_can_be_reached_by_keyboard_and_are_named() -> None:
    page = page_with("dog")
    scrolling = [a for _, a in page.found if a.get("class") == "scroll"]
    assert scrolling
    assert all(a["tabindex"] == "0" and a["aria-label"] and a["role"] for a in scrolling)
    ids = {a["id"] for _, a in page.found if "id" in a}
    assert all(link["href"].removeprefix("#") in ids for link in page.of("a"))
    assert page.of("html")[0]["lang"] == "en"


def test_headings_do_not_skip_a_level() -> None:
    levels = [int(tag[1]) for tag, _ in page_with("dog").found if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after - before <= 1 for before, after in zip(levels, levels[1:], strict=False))


def test_dark_mode_and_phones_have_their_rules() -> None:
    page = evaluation_page(made_scores(), title="dog")
    assert "prefers-color-scheme: dark" in page
    assert "@media (max-width:" in page
    assert 'name="viewport"' in page
    assert '"Segoe UI"' in page  # the style sheet is not escaped


def test_a_dark_chart_is_offered_to_dark_screens() -> None:
    (source,) = page_with("dog").of("source")
    assert source["media"] == "(prefers-color-scheme: dark)"


def test_scores_judges_and_real_values_are_on_the_page() -> None:
    text = Elements(evaluation_page(made_scores(copying=True), title="0003-dog")).text
    for part in (
        "0.712 (0.650 to 0.770)",
        "0.700",
        "ab" * 32,
        "tiny-dino",
        "copies the photos",
        "without the identifier",
    ):
        assert part in text
    assert "CLIP-T-L" not in text  # no judge, no row


def test_small_pictures_are_kept_exactly_and_large_ones_made_small() -> None:
    tiny = Image.effect_noise((64, 64), 90).convert("RGB")
    found = embedded_image(tiny, "noise")
    with Image.open(io.BytesIO(base64.b64decode(found.source.partition(",")[2]))) as back:
        assert back.tobytes() == tiny.tobytes()
    large = embedded_image(Image.new("RGB", (2000, 1000)), "large")
    assert (large.width, large.height) == (256, 128)
    assert large.source.startswith("data:image/webp;base64,")


def test_nothing_of_a_photos_exif_is_carried(tmp_path) -> None:
    exif = Image.Exif()
    exif[0x010E] = "taken at home"
    Image.new("RGB", (400, 300)).save(tmp_path / "a.jpg", exif=exif)
    with Image.open(tmp_path / "a.jpg") as photo:
        content = base64.b64decode(embedded_image(photo, "photo").source.partition(",")[2])
    assert b"taken at home" not in content


def test_blocks_render_on_their_own() -> None:
    sections = [PageSection("One", (Facts((("a", "b"),)), Text("careful", is_warning=True), Gallery("g", [])))]
    text = Elements(render_page("t", sections, lead="lead", foot="foot")).text
    assert all(part in text for part in ("One", "careful", "lead", "foot"))


def test_a_note_tells_scores_and_copying() -> None:
    prompt = made_scores(copying=True)["subjects"][0]["prompts"][0]
    assert prompt_note(prompt) == "DINO 0.712 · CLIP-I 0.810 · CLIP-T 0.301 · copies the photos"


def test_every_image_of_a_strip_bears_what_it_shows() -> None:
    rows = [ImageRow("learning rate 1e-4", [Image.new("RGB", (9, 9))] * 2, captions=["in space", "on the beach"])]
    page = Elements(render_page("t", [PageSection("Images", (Gallery("dog", rows),))]))
    assert re.search(r"learning rate 1e-4\s+in space\s+on the beach", page.text)
    alts = [a["alt"] for tag, a in page.found if tag == "img"]
    assert alts == ["learning rate 1e-4, in space", "learning rate 1e-4, on the beach"]


def test_strips_wrap_instead_of_being_cut() -> None:
    css = render_page("t", [])
    strip = re.search(r"\.strip \{([^}]*)\}", css)
    assert strip is not None
    assert "flex-wrap: wrap" in strip.group(1)
    assert "overflow" not in strip.group(1)


def test_on_a_phone_every_value_of_a_table_stands_beside_its_columns_name() -> None:
    page = Elements(evaluation_page(made_scores(), title="t"))
    cells = [a for tag, a in page.found if tag == "td" and a.get("data-label") == "DINO ↑"]
    assert cells
    assert all(a["role"] == "cell" for a in cells)
    phone = evaluation_page(made_scores(), title="t").partition("@media (max-width: 40rem)")[2]
    assert "content: attr(data-label)" in phone
    assert re.search(r"\.scroll \{ overflow: visible; \}", phone)


def test_a_score_is_never_broken_from_its_name() -> None:
    rows = [ImageRow("in space", [Image.new("RGB", (9, 9))], note="DINO 0.712 · CLIP-T 0.301")]
    page = render_page("t", [PageSection("Images", (Gallery("dog", rows),))])
    assert '<span class="whole">DINO 0.712</span> · <span class="whole">CLIP-T 0.301</span>' in page
    assert "display: inline-block" in page.partition(".whole {")[2].partition("}")[0]


def test_an_interval_stands_beneath_its_value_and_a_star_beside_it() -> None:
    cells = ("one", "+0.19 (+0.13 to +0.25) *", "-0.10 (-0.19 to +0.02)", "+0.18")
    page = render_page("t", [PageSection("Scores", (Table(("", "DINO", "scene", "DIV"), (cells,)),))])
    assert "+0.19 * <small>(+0.13 to +0.25)</small>" in page
    assert "-0.10 <small>(-0.19 to +0.02)</small>" in page
