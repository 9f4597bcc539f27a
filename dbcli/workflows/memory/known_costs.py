"""What recipes were found to cost, kept in the user's cache: a dry run of one that is known imports no torch.

A cost depends on the base, the recipe, the number of photos, the device and the versions of the libraries that would do
the work. Whether it fits depends on the memory that is free, and is asked anew each time.
"""

import contextlib
import hashlib
import json
import os
import platform
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from dbcli import __version__
from dbcli.project.files.atomic import write_json
from dbcli.project.files.records import json_or_nothing
from dbcli.project.settings.profile_settings import Profile
from dbcli.project.settings.project_settings import ProjectSettings

# To be raised when costs are counted in another way.
VERSION = 10
LIBRARIES = ("torch", "diffusers", "transformers", "peft", "bitsandbytes", "prodigyopt", "schedulefree")


@dataclass(frozen=True)
class Cost:
    """Bytes of the program itself and of each phase beside it, and seconds; on which device, in words.

    `loaded_bytes` is what the program held when it was asked how much memory was free; `latent_shape` is the base's:
    channels, px a latent covers, and the resolution in px.
    """

    device: str
    loaded_bytes: int
    own_bytes: int
    phases: dict[str, int]
    step_seconds: float
    seconds: float
    latent_shape: tuple[int, int, int]


def key_of(settings: ProjectSettings, profile: Profile, photos: object, device: str) -> str | None:
    """Under what a cost is kept; None for a base whose hash is not known yet, which another may take the place of.

    `photos` is what of them decides it: their number, or their shapes.
    """
    base = settings.base_hash or (settings.base if settings.is_embedded else None)
    if base is None:
        return None
    facts = [VERSION, __version__, [_version(name) for name in LIBRARIES], platform.platform(), os.cpu_count()]
    # A home folder may be shared by machines, and "cuda" mean another GPU on each of them.
    facts += [platform.node(), os.environ.get("CUDA_VISIBLE_DEVICES")]
    facts += [os.environ.get("OMP_NUM_THREADS"), device, photos, base, settings.revision, settings.base_choices]
    facts.append(profile.model_dump(mode="json"))
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]


def known_cost(key: str | None) -> Cost | None:
    """The cost kept under a key, or None."""
    try:
        found = {} if key is None else json_or_nothing(_file(key))
        channels, factor, resolution = found.pop("latent_shape")
        return Cost(**found, latent_shape=(channels, factor, resolution))
    except (TypeError, ValueError, KeyError):
        return None


def remember_cost(key: str | None, cost: Cost) -> None:
    """Keeps a cost; a cache that cannot be written is no fault."""
    if key is not None:
        with contextlib.suppress(OSError):
            _file(key).parent.mkdir(parents=True, exist_ok=True)
            write_json(_file(key), asdict(cost))


def _file(key: str) -> Path:
    import platformdirs

    return Path(platformdirs.user_cache_dir("dreambooth")) / "costs" / f"{key}.json"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
