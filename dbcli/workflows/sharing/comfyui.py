"""A run as a folder to be laid over ComfyUI's own: its file in its place, and a workflow that opens with its recipe."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dbcli.diffusion.files.model_files import open_weights
from dbcli.diffusion.formats.kind_checks import only_merges
from dbcli.errors import Refused, UnsupportedFile, UsageError
from dbcli.project.files.atomic import commit_folder, temporary_folder, write_json
from dbcli.project.files.layout import Layout
from dbcli.project.files.names import slug
from dbcli.project.runs.checkpoints import LORA_FILE, checked_weights
from dbcli.project.runs.run_store import RunRecord
from dbcli.project.settings.profile_settings import Profile
from dbcli.project.settings.project_settings import ProjectSettings, load_settings
from dbcli.workflows.models.textual_inversion import INVERSION, by_word
from dbcli.workflows.progress import Progress
from dbcli.workflows.setup.effective_settings import profile_of
from dbcli.workflows.setup.named_paths import check_writable
from dbcli.workflows.sharing.best_image import BestImage, best_image
from dbcli.workflows.sharing.comfyui_graph import api_workflow, interface_workflow
from dbcli.workflows.sharing.comfyui_nodes import ZEROS, Files, workflow_nodes
from dbcli.workflows.sharing.comfyui_sampling import comfy_sampling
from dbcli.workflows.sharing.export import Exported, ExportRequest, export_run, exported_run, no_dora
from dbcli.workflows.sharing.recipients import KNOWN_SIZES

if TYPE_CHECKING:
    from dbcli.diffusion.bases.base import Base

TARGET = "comfyui"
CHECKPOINTS, LORAS, EMBEDDINGS = "models/checkpoints", "models/loras", "models/embeddings"
WORKFLOWS = "user/default/workflows"
ZEROS_NOTE = (
    f"The base has zeros in place of an empty negative prompt, which the node {ZEROS} makes; bypass it where you write "
    "a negative prompt."
)
# The first width of a UNet's blocks and the width of its prompts, by which ComfyUI knows Stable Diffusion.
KNOWN_WIDTHS = {(first, prompts) for first, _, prompts in KNOWN_SIZES}


@dataclass(frozen=True)
class ComfyExport:
    """What lies in the folder, what it was proved by, the recipe that the workflow opens with, and what is to be known.

    `files` are relative to the folder. `base_files` have to lie in ComfyUI's folder beside them.
    """

    exported: Exported
    folder: Path
    files: list[str]
    workflow: str
    best: BestImage
    sampler: str
    scheduler: str
    base_files: list[str]
    notes: list[str]


def export_to_comfyui(
    layout: Layout, request: ExportRequest, progress: Progress, *, offline: bool, with_base: bool = False
) -> ComfyExport:
    """Writes a run's file, `with_base` its base's too, and the workflow, into one new folder.

    Raises what an export raises, UnsupportedFile for a base that ComfyUI does not know, UsageError for a base that
    cannot be written for it.
    """
    record = exported_run(layout, request.run)
    profile, settings = profile_of(layout, record), load_settings(layout)
    folder = request.out or layout.exports_dir / f"{record.name}-{TARGET}"
    if folder.exists():
        raise Refused(f"{folder} already exists.", hint="--out PATH chooses another place")
    check_writable(folder.parent)
    facts = _facts_of(settings, record, offline=offline)
    target = format_of(layout, record, profile)
    if target == "checkpoint" and target not in facts.family.exports:
        raise no_dora(record, merges=False)
    if with_base and (target == "checkpoint" or facts.family.comfyui_files):
        why = (
            "its own file is a whole model" if target == "checkpoint" else "ComfyUI loads this base from several files"
        )
        raise UsageError(f"--with-base writes the base of {record.name} to no use: {why}.", hint="leave it out")
    best = best_image(layout, record, profile, facts)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with temporary_folder(folder) as outer:
        name = slug(f"{layout.root.name}-{record.name}", record.name, 60)
        files = _files(record, settings, target, name, facts, with_base=with_base)
        export = replace(request, target=target, out=outer / files.own, recorded_as=str(folder / files.own))
        exported = export_run(layout, export, progress, offline=offline)
        if with_base:
            _write_base(outer / CHECKPOINTS / files.checkpoint, layout, request, progress, offline=offline)
        sampling = comfy_sampling(best.recipe, facts)
        nodes = workflow_nodes(best.recipe, sampling, files, facts)
        (outer / WORKFLOWS).mkdir(parents=True)
        write_json(outer / WORKFLOWS / f"{name}.json", interface_workflow(nodes))
        write_json(outer / WORKFLOWS / f"{name}-api.json", api_workflow(nodes))
        written = sorted(path.relative_to(outer).as_posix() for path in outer.rglob("*") if path.is_file())
        commit_folder(outer, folder)
    zeros = [ZEROS_NOTE] if any(node.kind == ZEROS for node in nodes) else []
    notes = [*sampling.notes, *zeros, *_base_notes(record, settings, files, facts, with_base=with_base)]
    for line in notes:
        progress.note(line)
    return ComfyExport(
        replace(exported, target=TARGET, path=folder),
        folder,
        written,
        f"{WORKFLOWS}/{name}.json",
        best,
        sampling.sampler,
        sampling.scheduler,
        [] if with_base else files.needed,
        notes,
    )


def _facts_of(settings: ProjectSettings, record: RunRecord, *, offline: bool) -> Base:
    """The base without its weights. Raises UnsupportedFile where ComfyUI does not know its like."""
    from dbcli.diffusion.estimate.meta_base import load_meta_base

    base = load_meta_base(settings.base, settings.revision, **settings.base_choices)
    config: Any = base.unet.config
    widths, prompts = config.get("block_out_channels"), config.get("cross_attention_dim")
    is_known = widths is None or (widths[0], prompts) in KNOWN_WIDTHS
    if TARGET not in base.family.exports or not is_known:
        found = "" if is_known else f" (its first block is {widths[0]} wide and reads prompts of {prompts})"
        raise UnsupportedFile(
            f"ComfyUI does not load models on the base {record.base.name}: it knows Stable Diffusion by its "
            f"standard sizes{found}.",
            hint=f"dreambooth export {record.number} --to {base.family.exports[0]}",
        )
    return base


def format_of(layout: Layout, record: RunRecord, profile: Profile) -> str:
    """The format of the run's own file; a DoRA is merged, as ComfyUI reads its magnitudes otherwise.

    An imported LoKr or LoHa with magnitudes is one, too, which no setting tells.
    """
    if record.method == INVERSION:
        return "embedding"
    if record.method != "lora" or profile.lora.dora:
        return "checkpoint"
    return "checkpoint" if only_merges(open_weights(checked_weights(layout, record) / LORA_FILE)) else "kohya"


def _files(
    record: RunRecord, settings: ProjectSettings, target: str, name: str, facts: Base, *, with_base: bool
) -> Files:
    """What the workflow loads, by name, and what of it has to be in ComfyUI's folder already."""
    model = f"{name}.safetensors"
    if target == "checkpoint":
        return Files(f"{CHECKPOINTS}/{model}", name, checkpoint=model)
    own = EMBEDDINGS if target == "embedding" else f"{LORAS}/{model}"
    words = {str(one.identifier): Path(by_word(one)).stem for one in record.subjects} if target == "embedding" else {}
    lora = "" if target == "embedding" else model
    parts = facts.family.comfyui_files
    if parts:
        return Files(
            own, name, lora=lora, parts=parts, needed=[f"models/{place}/{one}" for place, one in parts.items()]
        )
    source = Path(settings.base)
    is_file = source.suffix in (".safetensors", ".ckpt") and not with_base
    checkpoint = source.name if is_file else f"{slug(record.base.name, 'base', 60)}.safetensors"
    return Files(own, name, checkpoint=checkpoint, lora=lora, words=words, needed=[f"{CHECKPOINTS}/{checkpoint}"])


def _base_notes(
    record: RunRecord, settings: ProjectSettings, files: Files, facts: Base, *, with_base: bool
) -> list[str]:
    if with_base or not files.needed:
        return []
    notes = [f"The workflow loads the base {record.base.name} from {', '.join(files.needed)} in ComfyUI's folder."]
    if files.parts:
        notes[0] += " Where your files of it have other names, choose them in the loaders."
        return notes
    if settings.base != files.checkpoint and not Path(settings.base).is_file():
        notes[0] += " Choose your own file of it in the node Load Checkpoint, or add --with-base, which writes it."
    if settings.vae is not None:
        notes.append("The project's VAE is not in that file; --with-base writes the base with it.")
    return notes


def _write_base(path: Path, layout: Layout, request: ExportRequest, progress: Progress, *, offline: bool) -> None:
    """The bare base as one file, in the precision that was asked for."""
    import torch

    from dbcli.diffusion.formats.checkpoint import write_checkpoint
    from dbcli.workflows.models.weights import load_model

    dtype = torch.float16 if request.precision == "fp16" else torch.float32
    path.parent.mkdir(parents=True, exist_ok=True)
    with progress.stage("Writing the base as one file", 1) as stage:
        write_checkpoint(path, load_model(layout, None, progress, offline=offline, device="cpu"), dtype=dtype)
        stage.advance()
