"""Where generated images, class images and exports lie; what others will see of an upload is shown first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from dbcli.cli.invocation import Invocation
from dbcli.cli.terminal.screen import Screen
from dbcli.cli.terminal.tables import Column
from dbcli.counts import counted
from dbcli.errors import Refused, UsageError
from dbcli.hints import quoted

if TYPE_CHECKING:
    from dbcli.workflows.class_images.manage import SetSummary
    from dbcli.workflows.generation.generate import Generated
    from dbcli.workflows.sharing.comfyui import ComfyExport
    from dbcli.workflows.sharing.export import Exported, ExportRequest
    from dbcli.workflows.sharing.publish import Bundle, Target

SHOWN_IMAGES = 8
SET_COLUMNS = (
    Column("set"),
    Column("prompt", wraps=True, least=16),
    Column("images", right=True),
    Column("size", drop=2, right=True),
    Column("fits the base", drop=1),
)


def show_generated(screen: Screen, generated: Generated) -> None:
    """Where the images lie."""
    from dbcli.workflows.generation.generate import generated_document

    screen.document(generated_document(generated))
    count = len(generated.images)
    screen.line(f"Generated {counted(count, 'image')} with {generated.title}")
    for image in generated.images[:SHOWN_IMAGES]:
        screen.line(f"  {image.path}")
    if count > SHOWN_IMAGES:
        screen.line(f"  … and {count - SHOWN_IMAGES} more in {generated.images[0].path.parent}")
    screen.files(Grid=generated.grid)


def show_class_image_sets(screen: Screen, sets: Sequence[SetSummary]) -> None:
    """All class image sets, a line each."""
    screen.document({"sets": [asdict(one) for one in sets]})
    rows = [
        (
            one.key,
            one.prompt or "own photos",
            one.images,
            f"{one.size_bytes / 1e6:.1f} MB",
            "" if one.fits_base else "no",
        )
        for one in sets
    ]
    none = "No class images yet. A run generates its own, or: dreambooth reg make --class dog"
    screen.table(None, SET_COLUMNS, rows, empty=none)


def show_export(screen: Screen, made: Exported) -> None:
    """Where an export lies, which programs read it, how well it was proved, and what its users have to know."""
    known = made.recipient
    screen.document(_export_document(made))
    screen.line(f"Exported {made.run} to {made.path}")
    screen.line(f"For {known.readers}")
    screen.line("To use it, people need:")
    for one in known.subjects:
        words = f"identifier {one.word}, class {one.class_noun}"
        screen.line(f"  {one.name}: '{one.word} {one.class_noun}' in the prompt ({words})")
    base = f"  base {known.base}"
    if known.strength is not None:
        screen.line(f"{base}, strength {known.strength:g}")
    else:
        screen.line(base if made.target == "embedding" else f"{base}, which is in the file")
    _show_proof(screen, made)


def show_comfyui(screen: Screen, made: ComfyExport) -> None:
    """What lies in the folder, where it goes, and what the workflow opens with."""
    recipe = made.best.recipe
    opens = {
        "prompt": recipe.prompt,
        "negative": recipe.negative,
        "sampler": made.sampler,
        "scheduler": made.scheduler,
        "steps": recipe.steps,
        "guidance": recipe.guidance,
        "seed": recipe.seed,
        "width": recipe.width,
        "height": recipe.height,
    }
    screen.document(
        {
            **_export_document(made.exported),
            "files": made.files,
            "workflow": made.workflow,
            "opens_with": opens,
            "taken_from": made.best.source,
            "likeness_beyond_class": made.best.likeness,
            "base_files": made.base_files,
            "notes": [*made.exported.recipient.notes, *made.notes],
        }
    )
    screen.line(f"Exported {made.exported.run} to {made.folder}, for ComfyUI:")
    for file in made.files:
        screen.line(f"  {file}")
    likeness = "" if made.best.likeness is None else f" ({made.best.likeness:.3f})"
    screen.line(f"The workflow opens with {made.best.source}{likeness}:")
    screen.line(f"  {recipe.prompt}")
    steps = counted(recipe.steps, "step")
    how = f"{made.sampler}, {made.scheduler}, {steps}, guidance {recipe.guidance:g}, seed {recipe.seed}"
    screen.line(f"  {how}, {recipe.width} x {recipe.height} px")
    for file in made.base_files:
        screen.line(f"It needs {file} beside it.")
    screen.line("Lay the folder over ComfyUI's, then open the workflow in its sidebar:")
    screen.command(f"cp -r {quoted(made.folder)}/. ComfyUI/")
    _show_proof(screen, made.exported)


def _export_document(made: Exported) -> dict[str, object]:
    known = made.recipient
    return {
        "run": made.run,
        "to": made.target,
        "path": made.path,
        "difference": made.difference,
        "proved_by": made.proved_by,
        "for": known.readers,
        "subjects": [{"name": one.name, "word": one.word, "class": one.class_noun} for one in known.subjects],
        "base": known.base,
        "strength": known.strength,
        "notes": known.notes,
    }


def _show_proof(screen: Screen, made: Exported) -> None:
    proof = f"largest difference of a pixel {made.difference:.2g} on a scale from -1 to 1"
    screen.line(f"Loaded back by {made.proved_by}: {proof}", style="dim")


def publish(call: Invocation, request: ExportRequest, repo: str | None, *, public: bool) -> None:
    """Bundles a run, shows what is in it, asks, and uploads it. Raises Refused (exit 6) where nobody agreed."""
    from dbcli.workflows.sharing.publish import bundled, check_form, find_target, send

    if request.out is not None:
        raise UsageError("--out is for local files; --to hub takes --repo.")
    layout = call.layout
    check_form(layout, request.run)
    name = call.wanted(repo, "--repo", "Name of the repository on the Hub", hint="add --repo NAME")
    # Where nobody can agree the hub is not asked either: the list alone is shown.
    target = find_target(name, public=public, offline=call.offline, ask=call.yes or call.may_ask)
    with bundled(layout, request, target, call.screen, offline=call.offline) as bundle:
        _show_bundle(call.screen, bundle, target)
        if target.api is None or not call.sure("Upload this"):
            raise Refused("Nothing was uploaded: it was not confirmed.", hint="--yes confirms what is listed")
        address = send(bundle, target)
    files = [{"path": path, "bytes": size} for path, size in bundle.files]
    call.screen.document({"run": bundle.run, "to": "hub", "url": address, "private": target.private, "files": files})
    call.screen.line(f"Uploaded {bundle.run} to {address}")


def _show_bundle(screen: Screen, bundle: Bundle, target: Target) -> None:
    """The files with their sizes, the words, and who will see them; on stderr, for it comes before any result."""
    who = "you and the people you add (private)" if target.private else "everybody (public)"
    lines = [f"{target.repository} on the Hugging Face Hub will be visible to {who}. It will contain:"]
    lines += [f"  {size:>14,} bytes  {path}" for path, size in bundle.files]
    lines += [f"  {name}: {words}" for name, words in bundle.words]
    lines.append("Your photos are not included. Images and weights contain their prompts and settings.")
    screen.warn("\n".join(lines))
