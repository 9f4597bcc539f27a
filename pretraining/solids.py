"""A small sphere tracer: solids as signed distances, drawn with one sun, soft shadow and a blurred backdrop."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Distance = Callable[[np.ndarray], np.ndarray]
Paint = Callable[[np.ndarray], np.ndarray]
STEPS = 72
FAR = 9.0


@dataclass(frozen=True)
class Solid:
    """A signed distance [N, 3] -> [N] and the colour [N, 3] in [0, 1] of its surface points."""

    distance: Distance
    paint: Paint


def plain_paint(red: int, green: int, blue: int) -> Paint:
    """Return a paint of one colour, given in 0 .. 255."""
    colour = np.array([red, green, blue], np.float32) / 255
    return lambda points: np.broadcast_to(colour, points.shape)


def ellipsoid(centre: tuple[float, float, float], radii: tuple[float, float, float]) -> Distance:
    """Return the (bounded) distance to an ellipsoid."""
    middle, scale = np.array(centre, np.float32), np.array(radii, np.float32)

    def distance(points: np.ndarray) -> np.ndarray:
        local = (points - middle) / scale
        outer, inner = np.linalg.norm(local, axis=1), np.linalg.norm(local / scale, axis=1)
        return outer * (outer - 1) / np.maximum(inner, 1e-6)

    return distance


def capsule(start: tuple, end: tuple, radius: float, end_radius: float | None = None) -> Distance:
    """Return the distance to a rod with round ends, which may taper."""
    first, axis = np.array(start, np.float32), np.array(end, np.float32) - np.array(start, np.float32)
    last = radius if end_radius is None else end_radius

    def distance(points: np.ndarray) -> np.ndarray:
        along = np.clip((points - first) @ axis / (axis @ axis), 0, 1)
        gap = np.linalg.norm(points - first - along[:, None] * axis, axis=1)
        return gap - (radius + (last - radius) * along)

    return distance


def torus(centre: tuple, axis: tuple, ring: float, thickness: float) -> Distance:
    """Return the distance to a ring around an axis."""
    middle, unit = np.array(centre, np.float32), np.array(axis, np.float32)
    unit = unit / np.linalg.norm(unit)

    def distance(points: np.ndarray) -> np.ndarray:
        local = points - middle
        height = local @ unit
        flat = np.linalg.norm(local - height[:, None] * unit, axis=1)
        return np.hypot(flat - ring, height) - thickness

    return distance


def blend(*parts: Distance, softness: float = 0.08) -> Distance:
    """Return the smooth union of distances (polynomial smooth minimum)."""

    def distance(points: np.ndarray) -> np.ndarray:
        total = parts[0](points)
        for part in parts[1:]:
            other = part(points)
            mix = np.clip(0.5 + 0.5 * (other - total) / softness, 0, 1)
            total = other * (1 - mix) + total * mix - softness * mix * (1 - mix)
        return total

    return distance


def nearest(solids: list[Solid], points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the distance [N] to the nearest solid and its index [N]."""
    distances = np.stack([solid.distance(points) for solid in solids])
    return distances.min(0), distances.argmin(0)


def trace(solids: list[Solid], origins: np.ndarray, rays: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Follow rays [N, 3] to a surface; return the length [N] and whether it was reached [N]."""
    length, open_rays = np.zeros(len(rays), np.float32), np.arange(len(rays))
    hit = np.zeros(len(rays), bool)
    for _ in range(STEPS):
        gap, _ = nearest(solids, origins[open_rays] + length[open_rays, None] * rays[open_rays])
        length[open_rays] += gap * 0.9
        hit[open_rays[gap < 0.003]] = True
        open_rays = open_rays[(gap >= 0.003) & (length[open_rays] < FAR)]
        if not len(open_rays):
            break
    return length, hit


def normals(solids: list[Solid], points: np.ndarray) -> np.ndarray:
    """Return unit surface normals [N, 3] by central differences."""
    steps = np.eye(3, dtype=np.float32) * 0.004
    slope = [nearest(solids, points + step)[0] - nearest(solids, points - step)[0] for step in steps]
    gradient = np.stack(slope, 1)
    return gradient / np.maximum(np.linalg.norm(gradient, axis=1, keepdims=True), 1e-6)


def camera_rays(size_px: int, turn: float, lift: float, away: float, aim: float) -> tuple[np.ndarray, np.ndarray]:
    """Return origins and unit directions [size^2, 3] of a camera on a circle (angles in degrees) aimed at a height."""
    angle, rise = np.deg2rad(turn), np.deg2rad(lift)
    eye = away * np.array([np.cos(angle) * np.cos(rise), np.sin(rise), np.sin(angle) * np.cos(rise)])
    eye = eye + np.array([0, aim, 0])
    forward = np.array([0, aim, 0]) - eye
    forward = forward / np.linalg.norm(forward)
    right = np.cross(forward, [0, 1, 0])
    right = right / np.linalg.norm(right)
    up = np.cross(right, forward)
    axis = (np.arange(size_px) + 0.5) / size_px * 2 - 1
    across, down = np.meshgrid(axis, axis)
    rays = forward + 0.36 * (across[..., None] * right - down[..., None] * up)
    rays = (rays / np.linalg.norm(rays, axis=-1, keepdims=True)).reshape(-1, 3).astype(np.float32)
    return np.broadcast_to(eye.astype(np.float32), rays.shape), rays


def shade(solids: list[Solid], points: np.ndarray, rays: np.ndarray, sun: np.ndarray) -> np.ndarray:
    """Return colours [N, 3] in [0, 1] of surface points under one sun and a pale sky, with a little gloss."""
    facing = normals(solids, points)
    _, index = nearest(solids, points)
    colour = np.zeros_like(points)
    for number, solid in enumerate(solids):
        mine = index == number
        colour[mine] = solid.paint(points[mine])
    light = np.clip(facing @ sun, 0, 1)
    _, dark = trace(solids, points + facing * 0.02, np.broadcast_to(sun, points.shape))
    light = np.where(dark, light * 0.3, light)
    mirror = rays - 2 * (rays * facing).sum(1, keepdims=True) * facing
    gloss = np.clip(mirror @ sun, 0, 1) ** 30 * 0.25 * ~dark
    return np.clip(colour * (0.42 + 0.14 * facing[:, 1:2] + 0.55 * light[:, None]) + gloss[:, None], 0, 1)


def photograph(
    solids: list[Solid], backdrop: np.ndarray, *, turn: float, lift: float, away: float, aim: float
) -> np.ndarray:
    """Draw solids standing at height 0 before a backdrop uint8 [S, S, 3]; return uint8 [S, S, 3]."""
    size_px = backdrop.shape[0]
    origins, rays = camera_rays(2 * size_px, turn, lift, away, aim)
    image = np.repeat(np.repeat(backdrop.astype(np.float32) / 255, 2, 0), 2, 1).reshape(-1, 3).copy()
    angle = np.deg2rad(turn + 50)
    sun = np.array([np.cos(angle), 1.3, np.sin(angle)], np.float32)
    sun = sun / np.linalg.norm(sun)
    fall = np.where(rays[:, 1] < -1e-3, -origins[:, 1] / np.minimum(rays[:, 1], -1e-3), FAR)
    floor = np.flatnonzero(fall < FAR)
    feet = origins[floor] + fall[floor, None] * rays[floor]
    near_by = np.hypot(feet[:, 0], feet[:, 2]) < 2.5
    _, dark = trace(
        solids, feet[near_by] + np.array([0, 0.01, 0], np.float32), np.broadcast_to(sun, (near_by.sum(), 3))
    )
    image[floor[near_by][dark]] *= 0.6
    length, hit = trace(solids, origins, rays)
    points = origins[hit] + length[hit, None] * rays[hit]
    image[hit] = shade(solids, points, rays[hit], sun)
    image = image.reshape(size_px, 2, size_px, 2, 3).mean((1, 3))
    return (image * 255).round().clip(0, 255).astype(np.uint8)
