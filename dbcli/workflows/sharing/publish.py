"""A run on its way to the hub: proved, described by a card, and laid out whole before anybody is asked.

The photos never leave the project: a bundle holds weights, the card, and images that the run itself generated.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dbcli import __version__
from dbcli.errors import DataError, Refused, Unreachable, UnsupportedFile
from dbcli.project.files.atomic import temporary_folder, write_text
from dbcli.project.files.layout import Layout
from dbcli.project.images.recipes import Recipe, read_recipe
from dbcli.project.prompts.identifiers import Words, render_with
from dbcli.project.runs.checkpoints import LORA_FILE
from dbcli.project.runs.run_store import RunRecord
from dbcli.project.runs.score_files import is_of_result
from dbcli.project.settings.project_settings import load_settings
from dbcli.workflows.images.generated import words_of
from dbcli.workflows.models.loaded import CHECKPOINT_KEY, RUNS_KEY
from dbcli.workflows.models.textual_inversion import INVERSION, by_word, spellings
from dbcli.workflows.progress import Progress
from dbcli.workflows.setup.base_facts import is_flow
from dbcli.workflows.setup.effective_settings import profile_of
from dbcli.workflows.sharing.export import KINDS, ExportRequest, export_run, exported_run
from dbcli.workflows.sharing.export_metadata import Origin, settled_origin

if TYPE_CHECKING:
    from dbcli.diffusion.families.family import Family
    from dbcli.reports.model_card import CardFacts, CardScore, Shown

MOST_IMAGES = 6
USUAL_SIZE_PX = 512
# What a run of each method is uploaded as.
HUB_KINDS = {"full": "diffusers", "lora": "lora", INVERSION: "embedding"}
# What `generate` writes; sheets (grid-….png) show the photos and must stay here.
_IMAGE_NAME = re.compile(r"[0-9a-f]{12}-[0-9]{4}\.png")


@dataclass(frozen=True)
class Bundle:
    """Exactly what would be uploaded: the folder, its files with their bytes, and the words that go with it."""

    run: str
    repository: str
    folder: Path
    words: list[tuple[str, str]]
    files: list[tuple[str, int]] = field(default_factory=list)

    @property
    def size_bytes(self) -> int:
        return sum(size for _, size in self.files)


@dataclass(frozen=True)
class Target:
    """A repository of the hub: its full name, who will see it, and the way there (None: it was not asked yet)."""

    repository: str
    private: bool
    api: Any = None


def check_form(layout: Layout, run: str) -> None:
    """Raises UnsupportedFile for a run that can take no form on the hub: before it is asked, and anything loaded."""
    record = exported_run(layout, run)
    if record.method != "lora" or _shared_as(layout, record) == "lora" or not is_flow(load_settings(layout).base):
        return
    kind = KINDS[profile_of(layout, record).lora.kind]
    raise UnsupportedFile(
        f"{record.name} is a {kind}, which the hub's readers do not load, and its base {record.base.name} has "
        "no format of a whole model to merge it into.",
        hint=f"dreambooth export {record.name} --to kohya",
    )


def find_target(name: str, *, public: bool, offline: bool, ask: bool) -> Target:
    """Which repository is meant. `ask` goes to the hub, so that a hub out of reach is known before any work.

    Raises UsageError for a name that cannot be one, Unreachable in seconds, Refused for a repository that is public
    already where a private one is meant.
    """
    from dbcli.diffusion import hub_upload

    checked = hub_upload.check_repository(name)
    if offline:
        raise Unreachable("The hub is not contacted: --offline forbids it.", hint="leave --offline out")
    if not ask:
        return Target(checked, not public)
    api = hub_upload.make_api()
    repository = hub_upload.full_name(api, checked)
    seen_by_all = hub_upload.is_public(api, repository)
    if seen_by_all and not public:
        raise Refused(f"{repository} already exists and is public.", hint="--public confirms that; or another --repo")
    return Target(repository, not public if seen_by_all is None else not seen_by_all, api)


@contextmanager
def bundled(
    layout: Layout, request: ExportRequest, target: Target, progress: Progress, *, offline: bool
) -> Iterator[Bundle]:
    """Lays out what would be uploaded, in a folder that is gone afterwards.

    Raises whatever an export raises.
    """
    from dbcli.reports.model_card import model_card

    record = exported_run(layout, request.run)
    layout.exports_dir.mkdir(exist_ok=True)
    with temporary_folder(layout.exports_dir / f"{record.name}-hub") as outer:
        folder = outer / "repository"
        kind = HUB_KINDS[_shared_as(layout, record)]
        path = folder / LORA_FILE if kind == "lora" else folder
        # A folder's licence stands on its card.
        origin = Origin() if kind == "diffusers" else request.origin
        place = target.repository
        export = replace(request, run=record.name, target=kind, out=path, origin=origin, recorded_as=place)
        export_run(layout, export, progress, offline=offline)
        own = _own_images(layout, record)
        images = _copied(own, folder)
        if not images:
            progress.warn("The run has generated no images yet, so the card shows none.")
        size_px = own[0][1].width if own else USUAL_SIZE_PX
        facts = _facts(layout, record, target, images, request.origin.licence, size_px)
        family = _family_of(folder)
        facts = replace(facts, pipeline=family.pipeline, tag=family.tag)
        if facts.embeddings:
            facts = replace(facts, tables=list(family.tables.items()))
        write_text(folder / "README.md", model_card(facts))
        yield Bundle(
            record.name,
            target.repository,
            folder,
            [
                ("instance prompt", facts.instance_prompt),
                ("base", facts.base_model or facts.base_name),
                ("licence", facts.licence),
                ("prompts of the images", "; ".join(dict.fromkeys(one.prompt for one in images)) or "none"),
            ],
            sorted((path.relative_to(folder).as_posix(), path.stat().st_size) for path in _files(folder)),
        )


def _shared_as(layout: Layout, record: RunRecord) -> str:
    """The method whose form a run takes on the hub: LoKr and LoHa are merged, as the hub's readers load neither."""
    is_product = record.method == "lora" and profile_of(layout, record).lora.kind != "lora"
    return "full" if is_product else record.method


def send(bundle: Bundle, target: Target) -> str:
    """Uploads a bundle; returns the repository's address. Raises Unreachable, or Refused by the hub."""
    from dbcli.diffusion import hub_upload

    address: str = hub_upload.upload(
        target.api,
        bundle.folder,
        target.repository,
        private=target.private,
        message=f"{bundle.run}, by dreambooth-cli {__version__}",
    )
    return address


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def _own_images(layout: Layout, record: RunRecord) -> list[tuple[Path, Recipe]]:
    """What the run's result generated alone, the first image of each prompt before the second of any."""
    by_prompt: dict[str, list[tuple[Path, Recipe]]] = {}
    source = layout.images_dir(record.name)
    for path in sorted(source.iterdir()) if source.is_dir() else []:
        if not _IMAGE_NAME.fullmatch(path.name) or path.is_symlink():
            continue
        with suppress(DataError):
            recipe = read_recipe(path)
            if _is_of_result(recipe, record):
                by_prompt.setdefault(recipe.prompt, []).append((path, recipe))
    turns = range(max((len(found) for found in by_prompt.values()), default=0))
    return [found[turn] for turn in turns for found in by_prompt.values() if turn < len(found)][:MOST_IMAGES]


def _is_of_result(recipe: Recipe, record: RunRecord) -> bool:
    """Whether an image is of what is uploaded: of no other run's weights too, of no other weight, of no checkpoint."""
    return recipe.run == record.name and not recipe.extras.keys() & {RUNS_KEY, CHECKPOINT_KEY}


def _family_of(folder: Path) -> Family:
    """The family of what was laid out: as its folder names its class, or its files their architecture."""
    from dbcli.diffusion.families.known import family_of_export
    from dbcli.diffusion.files.model_files import open_weights

    index = folder / "model_index.json"
    if index.is_file():
        return family_of_export(json.loads(index.read_text(encoding="utf-8"))["_class_name"], "")
    metadata = open_weights(next(iter(sorted(folder.glob("*.safetensors"))))).metadata
    return family_of_export("", metadata.get("modelspec.architecture", ""))


def _copied(images: list[tuple[Path, Recipe]], folder: Path) -> list[Shown]:
    from dbcli.reports.model_card import Shown

    for path, _ in images:
        (folder / "images").mkdir(exist_ok=True)
        shutil.copyfile(path, folder / "images" / path.name)
    return [Shown(f"images/{path.name}", recipe.prompt) for path, recipe in images]


def _facts(
    layout: Layout, record: RunRecord, target: Target, images: list[Shown], licence: str | None, size_px: int
) -> CardFacts:
    from dbcli.diffusion.bases.hub import is_repository
    from dbcli.reports.model_card import CardFacts

    profile = profile_of(layout, record)
    spelt = spellings(layout, record)
    words = {name: Words(spelt[one.identifier], one.class_noun) for name, one in words_of(record).items()}
    first = next(iter(words.values()), None)
    base_model = record.base.source if is_repository(record.base.source) else None
    resolution = profile.images.resolution or size_px
    return CardFacts(
        title=target.repository.rpartition("/")[2],
        method=_shared_as(layout, record),
        base_model=base_model,
        base_name=record.base.name,
        licence=settled_origin(record, Origin(licence=licence)).licence or "other",
        instance_prompt=_prompt(profile.images.templates[0], first),
        words=[(one.identifier, one.class_noun) for one in words.values()],
        images=images,
        scores=list(_scores(layout, record)),
        training=_training(record, profile.train.learning_rate, resolution),
        is_trained_here=not record.imported_from,
        embeddings=[by_word(subject) for subject in record.subjects] if record.method == INVERSION else [],
        resolution_px=resolution,
        version=__version__,
        repository=target.repository,
    )


def _prompt(template: str, words: Words | None) -> str:
    return "a picture" if words is None else render_with(template, {"subject": words})


def _training(record: RunRecord, learning_rate: float, resolution: int) -> list[tuple[str, str]]:
    photos = sum(len(subject.photo_hashes) for subject in record.subjects)
    rows = [("method", record.method), ("resolution", f"{resolution} px")]
    if file := record.imported_from:
        author = file.get("metadata", {}).get("modelspec.author")
        rows.append(("made elsewhere", str(file.get("file")) + (f", by {author}" if author else "")))
    else:
        rows += [("photos", str(photos)), ("steps", str(record.result_step)), ("learning rate", f"{learning_rate:g}")]
        rows.append(("prior preservation", str(record.prior.get("line", "off"))))
    revision = f" at {record.base.revision}" if record.base.revision else ""
    return [*rows, ("base", f"{record.base.name}{revision}"), ("sha256 of the base", str(record.base.hash))]


def _scores(layout: Layout, record: RunRecord) -> Iterator[CardScore]:
    """Every score that the run's result got by a suite, as far as its files can be read."""
    from dbcli.reports.model_card import CardScore
    from dbcli.workflows.evaluation.evaluate import score_definitions

    for path in sorted(layout.evals_dir(record.name).glob("*/scores.json")):
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            if not is_of_result(found):
                continue
            for metric, definition in score_definitions().items():
                score = found["overall"].get(metric)
                if score is None or score.get("value") is None:
                    continue
                judge = found["protocol"]["judges"].get(definition["judge"], {}).get("judge", "")
                yield CardScore(
                    suite=str(found["suite"]),
                    title=definition["title"],
                    judge=str(judge),
                    value=float(score["value"]),
                    low=score.get("low"),
                    high=score.get("high"),
                    photos=found["real"].get(metric),
                    better=definition["better"],
                )
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            continue
