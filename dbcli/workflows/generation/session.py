"""A model kept in memory that draws one prompt after the other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dbcli.project.files.layout import Layout
from dbcli.project.runs.run_store import RunRecord
from dbcli.project.seeds import first_seed, next_seed
from dbcli.project.settings.profile_settings import DrawSettings, Profile
from dbcli.workflows.generation.generate import Drawn, check_typed_size, draw_settings, images_folder
from dbcli.workflows.generation.lora_mix import Composition, compose, load_composition
from dbcli.workflows.generation.request import GenerateRequest
from dbcli.workflows.images.generated import (
    check_clip_skip,
    draw_recipes,
    draw_size,
    recipes_for,
    text_layers,
    words_of,
)
from dbcli.workflows.images.grids import image_grid
from dbcli.workflows.progress import Progress
from dbcli.workflows.prompts.reading import read_by_base, read_prompts
from dbcli.workflows.prompts.render import rendered
from dbcli.workflows.setup.base_facts import facts_of
from dbcli.workflows.setup.effective_settings import profile_of
from dbcli.workflows.setup.output_folder import check_output, check_writable
from dbcli.workflows.signals import listening

if TYPE_CHECKING:
    from dbcli.diffusion.bases.base import Base


@dataclass(frozen=True)
class Session:
    """Runs loaded for drawing, or the bare base; `size` is width and height as asked for."""

    layout: Layout
    composition: Composition
    profile: Profile
    base: Base
    size: tuple[int | None, int | None]
    out: Path | None

    @property
    def record(self) -> RunRecord | None:
        """The run, knowing the subjects of all where there are several; None for the bare base."""
        return self.composition.whole

    @property
    def title(self) -> str:
        """What draws, in words."""
        return self.composition.name or "the bare base"

    @property
    def run(self) -> str | None:
        return None if self.record is None else self.record.name

    @property
    def seed(self) -> int:
        """The seed that images begin with where none is asked for."""
        return next_seed(self.profile.train.seed, 0)

    def settings(self, flags: Mapping[str, Any]) -> DrawSettings:
        """The run's own drawing settings with `flags` on top; ConfigError names every fault."""
        return draw_settings(self.profile, flags)

    def words(self) -> list[str]:
        """What a prompt may say of the subjects: {dog}, the identifier, and both words together."""
        found: dict[str, None] = {}
        for name, words in words_of(self.record).items():
            found.update(dict.fromkeys(word for word in (f"{{{name}}}", words.text, words.identifier) if word))
        return list(found)

    def draw(
        self, prompt: str, flags: Mapping[str, Any], seed: int, progress: Progress, *, grid: bool = False
    ) -> Drawn:
        """Draws one prompt into the run's images/ or `out`.

        Raises Interrupted between two steps after a signal, with the pictures finished before kept; the next call
        draws as if nothing had been.
        """
        settings = self.settings(flags)
        text, negative = rendered(self.layout, self.record, [prompt, settings.negative])
        settings = settings.model_copy(update={"negative": negative})
        seed = first_seed(seed, count=settings.count, option=":seed")
        check_clip_skip(settings, text_layers(self.base))
        size = draw_size(self.base, *self.size, self.profile.images.resolution)
        extras = self.composition.extras()
        recipes = recipes_for(
            [text], settings, seed=seed, size_px=size, base=self.base, record=self.record, extras=extras
        )
        read_prompts(self.layout, [text], self.record, progress, negative=negative)
        read_by_base(self.layout, self.base, [text, negative], self.record, progress)
        folder = self.out or images_folder(self.layout, self.record)
        with listening() as stop:
            images = draw_recipes(
                self.base,
                recipes,
                folder,
                batch_size=settings.batch_size,
                progress=progress,
                should_stop=stop,
                title=f"Drawing {len(recipes)} picture{'' if len(recipes) == 1 else 's'}",
            )
        sheet = image_grid(self.layout, self.record, images, folder) if grid else None
        return Drawn(self.run, images, sheet, self.title)


def open_session(layout: Layout, request: GenerateRequest, progress: Progress, *, offline: bool) -> Session:
    """Loads a run, or several, once. Raises whatever `compose` raises, and before that what `flags` get wrong."""
    composition = compose(layout, request.selection)
    profile = profile_of(layout, composition.whole)
    check_clip_skip(draw_settings(profile, request.flags), facts_of(layout).text_layers)
    check_typed_size(layout, request.size)
    check_output(request.out)
    check_writable(request.out or images_folder(layout, composition.whole))
    from dbcli.diffusion.devices import pick_device

    with progress.stage("Loading the model", 1) as stage:
        device = pick_device(profile.train.device)
        base = load_composition(layout, composition, progress, offline=offline, device=device)
        stage.advance()
    return Session(layout, composition, profile, base, request.size, request.out)
