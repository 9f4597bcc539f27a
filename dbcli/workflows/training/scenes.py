"""Scenes in front of which a run shows its subjects cut out, drawn by the base before anything learns."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from dbcli import __version__
from dbcli.diffusion.buckets import Size, size_for
from dbcli.project.subjects.held_out import held_out_places
from dbcli.project.subjects.photo_notes import mask_paths
from dbcli.workflows.images.generated import sampled
from dbcli.workflows.run_context import RunContext

if TYPE_CHECKING:
    import torch

    from dbcli.diffusion.bases.base import Base
    from dbcli.diffusion.sampling.sample import SamplingSettings

# "an empty place" and "the ground" drew stranger things in the middle on the embedded base, which leaves none empty.
PROMPT = "a photo of a place {scene}"

# Of a photo, by its subject's and its own place in the run: each scene it is shown in, and how that one looks.
Scenes = dict[tuple[int, int], list[tuple[str, "torch.Tensor"]]]


def wanted_scenes(run: RunContext) -> dict[tuple[int, int], list[str]]:
    """The scenes of every photo that has a mask, by its subject's place in the run and its own among the photos."""
    from dbcli.diffusion.cutouts import scenes_of

    images, seed = run.profile.images, run.profile.train.seed
    if not images.scene_cutouts or images.mask_loss == 1:
        return {}
    return {
        (number, place): scenes_of(seed, number, place, images.scene_cutouts, images.scenes)
        for number, subject in enumerate(run.subjects)
        for place, mask in enumerate(mask_paths(run.layout, subject))
        if mask is not None and place not in kept_places(run, number)
    }


def kept_places(run: RunContext, subject: int) -> list[int]:
    """The places of a subject's photos that a run keeps back, by the subject's number; none of what it rehearses."""
    taught = len(run.subjects) - sum(one.rehearsed for one in run.record.subjects)
    photos = len(run.subjects[subject].photos)
    return held_out_places(run.profile.images.held_out, photos) if subject < taught else []


def draw_scenes(run: RunContext, base: Base) -> Scenes:
    """Draws each photo's scenes, every one with a seed of its own, float32 `[3, H, W]` in [-1, 1], at its size.

    They are kept in the project and drawn once. The base must still be untuned. Raises Interrupted between two steps.
    """
    wanted, found = wanted_scenes(run), Scenes()
    for size in (sizes := run.sizes(base)):
        own = {photo: one for photo, one in wanted.items() if size_for(_shape(run, *photo), sizes) == size}
        found |= _scenes_of_size(run, base, own, size)
    return found


def _shape(run: RunContext, subject: int, photo: int) -> Size:
    return run.subjects[subject].shapes[photo]


def _scenes_of_size(run: RunContext, base: Base, wanted: Mapping[tuple[int, int], list[str]], size: Size) -> Scenes:
    """The scenes of photos that are trained at one size."""
    from dbcli.diffusion.files.kept_tensors import keep_tensors, kept_tensors

    prompts = [PROMPT.format(scene=one) for scenes in wanted.values() for one in scenes]
    if not prompts:
        return {}
    how, seed = _sampling(run, base, size), run.profile.prior.seed
    # By the kind of device: a run's ranks have one each, and what the first draws all of them show.
    facts = [__version__, base.hash, base.unet.device.type, repr(how), seed, prompts]
    file = run.layout.scenes_dir / f"{hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]}.safetensors"
    with run.group.main_first():
        kept = kept_tensors(file, ["images"])
        images = _sample(run, base, prompts, how) if kept is None else kept[0]
        if kept is None:
            keep_tensors(file, {"images": images})
    pixels = iter(images.float() / 127.5 - 1)
    return {photo: [(one, next(pixels)) for one in scenes] for photo, scenes in wanted.items()}


def _sampling(run: RunContext, base: Base, size: Size) -> SamplingSettings:
    """How scenes are drawn: as class images are."""
    from dbcli.diffusion.precision import precision_on
    from dbcli.diffusion.sampling.sample import SamplingSettings

    prior, device = run.profile.prior, base.unet.device
    return SamplingSettings(
        prior.sampler,
        prior.steps,
        prior.guidance,
        width=size[0],
        height=size[1],
        batch_size=prior.batch_size,
        precision=precision_on(prior.precision, device),
        timesteps=base.process.visited(prior.sampler, prior.steps, prior.timesteps),
    )


def _sample(run: RunContext, base: Base, prompts: Sequence[str], how: SamplingSettings) -> torch.Tensor:
    """An image of each prompt, uint8 `[N, 3, H, W]`."""
    import torch

    from dbcli.diffusion.images import to_uint8
    from dbcli.diffusion.noise import seed_for
    from dbcli.diffusion.sampling.sample import SampleRequest

    seed = run.profile.prior.seed
    requests = [SampleRequest(one, seed_for(seed, "scene image", 0, place)) for place, one in enumerate(prompts)]
    images = sampled(base, requests, how, range(len(requests)), "Scenes behind the subject", run.progress, run.stop)
    return torch.stack([to_uint8(image) for _, image in images])
