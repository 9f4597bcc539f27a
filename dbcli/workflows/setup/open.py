"""Making a project, finding it again, and settling which base it stands on."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dbcli.diffusion.vocabulary import read_with
from dbcli.errors import Refused, UsageError
from dbcli.hints import command, inside
from dbcli.project.files.atomic import sha256_of
from dbcli.project.files.layout import Layout, find_project
from dbcli.project.settings.profiles import load_profile, resolve, shipped_profiles
from dbcli.project.settings.project_settings import ProjectSettings, load_settings, load_user_settings, save_settings
from dbcli.workflows.progress import Progress
from dbcli.workflows.setup.base_facts import vocabulary_of
from dbcli.workflows.setup.base_guard import check_base_files, remember_base_files
from dbcli.workflows.setup.effective_settings import AUTO

if TYPE_CHECKING:
    import torch

    from dbcli.diffusion.bases.base import Base

DEFAULT_BASE = "sd-v1-4"
# What a project of an earlier release may stand on, by the hash of the embedded base it began with.
EARLIER_EDITIONS = {
    "7f5f7799b227b40e4b2b059ab5ef893bb6034b37dd81dfa1f1dd1f5e534ddb71": "tiny's first edition (64 px, release 0.1)",
    "cd83d47f815f585a425e55d583fd86aa6ab8f95431c40a6575d4b12ec731f0bc": "tiny as it was before the release of 0.2",
}


@dataclass(frozen=True)
class NewProject:
    """A project that was just made."""

    folder: Path
    base: str
    revision: str | None
    profile: str | None
    prediction_type: str | None = None
    vae: str | None = None
    vae_hash: str | None = None
    notes: tuple[str, ...] = ()


def open_project(folder: Path | None) -> Layout:
    """The project in `folder` or above it; in or above the current folder if None is given.

    From here on prompts are read with the vocabulary of its base.
    """
    if folder is not None and not folder.expanduser().is_dir():
        raise UsageError(
            f"-C {folder}: there is no such folder.", hint=f"{command('dreambooth', 'init', folder)} makes one"
        )
    layout = find_project(folder if folder is not None else Path.cwd())
    read_with(vocabulary_of(layout))
    return layout


def proposed_base(*, has_gpu: bool = True) -> str:
    """The base that `init` proposes: the person's own default, else Stable Diffusion v1.4, or tiny without a GPU."""
    return load_user_settings().base or (DEFAULT_BASE if has_gpu else "tiny")


def check_base(base: str, *, offline: bool) -> None:
    """Raises UsageError, MissingError or Refused for what cannot be a project's base."""
    from dbcli.diffusion.formats.kind_checks import check_base_kind

    check_base_kind(Path(base).expanduser(), needs_vae=True)
    from dbcli.diffusion.bases.base import judge_base, resolve_base

    judge_base(resolve_base(base, offline=offline), offline=offline)


def check_project_folder(folder: Path) -> Path:
    """The folder, whole, that can become a project. Raises Refused if it is one already, UsageError for a file."""
    target = folder.expanduser().resolve()
    if Layout(target).settings_file.exists():
        raise Refused(f"{target} is a project already.", hint=inside(target, "dreambooth"))
    if target.exists() and not target.is_dir():
        raise UsageError(f"{target} is a file.", hint=command("dreambooth", "init", f"{folder}-project"))
    above = next((one for one in target.parents if one.exists()), target)
    if not above.is_dir():
        raise UsageError(f"{above} is a file, not a folder.", hint=command("dreambooth", "init", target.name))
    return target


def init_project(
    folder: Path,
    base: str,
    profile: str | None,
    *,
    offline: bool,
    prediction_type: str | None = None,
    vae: Path | None = None,
) -> NewProject:
    """Makes `folder` a project on `base`, its hub revision frozen; nothing is made if the base cannot be loaded.

    That is judged from configurations and headers, before any weights are read or fetched. Raises Refused if it is a
    project already, UnsupportedFile, UsageError or MissingError for the base and the VAE, ConfigError for the profile
    and the prediction type.
    """
    target = check_project_folder(folder)
    layout = Layout(target)
    if profile is not None and profile != AUTO:
        resolve([(f"profile '{profile}'", load_profile(profile))])
    from dbcli.diffusion.formats.kind_checks import check_base_kind

    check_base_kind(Path(base).expanduser(), needs_vae=vae is None)
    from dbcli.diffusion.bases.base import judge_base, resolve_base

    reference = resolve_base(base, offline=offline)
    vae = None if vae is None else vae.expanduser().resolve()
    vae_path, vae_hash = (None, None) if vae is None else (str(vae), _vae_hash(vae))
    notes: list[str] = []
    if reference.kind != "embedded" or prediction_type or vae_path:
        notes = judge_base(reference, offline=offline, prediction_type=prediction_type, vae=vae_path)
    # A path would mean something else from another folder; names and hub ids are kept as typed.
    kept = reference.source if reference.kind in ("folder", "single-file") else base
    if profile is not None and profile != AUTO and profile not in shipped_profiles():
        profile = str(Path(profile).expanduser().resolve())
    for needed in (layout.subjects_dir, layout.class_images_dir, layout.runs_dir):
        needed.mkdir(parents=True, exist_ok=True)
    made = NewProject(target, kept, reference.revision, profile, prediction_type, vae_path, vae_hash, tuple(notes))
    settings = {key: value for key, value in asdict(made).items() if key not in ("folder", "notes")}
    save_settings(layout, ProjectSettings.model_validate(settings))
    return made


def _vae_hash(vae: Path) -> str:
    """SHA-256 of the file that a VAE's weights come from; over those of its shards in order, where it has some."""
    from dbcli.diffusion.bases.separate_vae import files_of_vae

    hashes = [sha256_of(file) for file in files_of_vae(vae)]
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()


def load_project_base(layout: Layout, progress: Progress, *, offline: bool, device: str | torch.device = "cpu") -> Base:
    """Loads the project's base into memory, and writes its hash down the first time.

    Raises Refused if the weights are no longer those the project began with.
    """
    from dbcli.diffusion.bases.base import load_base

    settings = load_settings(layout)
    if settings.base_hash is not None:
        check_base_files(layout, settings.base_hash)
    elif (
        settings.vae is not None and Path(settings.vae).exists() and _vae_hash(Path(settings.vae)) != settings.vae_hash
    ):
        raise Refused(
            f"The VAE {settings.vae} has changed since this project was created.",
            hint=f"put the old file back, or create a new project, or delete vae_hash from {layout.settings_file}",
        )
    base = load_base(
        settings.base,
        settings.revision,
        device=device,
        offline=offline,
        prediction_type=settings.prediction_type,
        vae=settings.vae,
        on_download=progress.note,
    )
    for note in base.notes:
        progress.warn(note)
    if settings.base_hash is None:
        save_settings(layout, settings.model_copy(update={"base_hash": base.hash, "revision": base.revision}))
    elif settings.is_embedded and settings.base_hash in EARLIER_EDITIONS:
        raise Refused(
            f"This project was created on {EARLIER_EDITIONS[settings.base_hash]}, not on this release's tiny.",
            hint="use that release for it, or create a new project: dreambooth init NAME --base tiny",
        )
    elif settings.base_hash != base.hash:
        raise Refused(
            f"The base {settings.base} has changed since this project was created "
            f"({base.hash[:12]} instead of {settings.base_hash[:12]}); its class images and runs would no longer fit.",
            hint=f"put the old file back, or create a new project, or delete base_hash from {layout.settings_file}",
        )
    remember_base_files(layout, base.hash, base.files)
    return base
