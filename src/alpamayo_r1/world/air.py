"""Light and air: the sun and the sky's share of the light, haze, and the sky itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from alpamayo_r1.world.scene import SceneBatch
from alpamayo_r1.world.texture import Colour, dot, mix, ramp, soft_noise
from alpamayo_r1.world.view import turned


@dataclass(frozen=True)
class Air:
    """Light of the pictures, each (I,) unless said: sun direction in the world, strength of sun and sky, overcast and night 0..1."""

    sun: tuple[torch.Tensor, torch.Tensor, torch.Tensor]
    direct: torch.Tensor
    ambient: torch.Tensor
    overcast: torch.Tensor
    night: torch.Tensor

    def rows(self, shape: Sequence[int], index: torch.Tensor | None = None) -> Air:
        """The same light viewed as `shape` (with -1 for the pictures), or picked by picture index."""
        view = (lambda t: t.view(shape)) if index is None else (lambda t: t[index])
        return Air(tuple(map(view, self.sun)), view(self.direct), view(self.ambient), view(self.overcast), view(self.night))


def air_over(scene: SceneBatch, count: int) -> Air:
    """The air of `count` pictures of every scene."""
    azimuth, elevation = (v.repeat_interleave(count) for v in scene.sun.unbind(-1))
    overcast, night = scene.sky.repeat_interleave(count), scene.night.repeat_interleave(count)
    sun = (azimuth.cos() * elevation.cos(), azimuth.sin() * elevation.cos(), elevation.sin())
    direct, ambient = 0.62 * (1 - 0.9 * overcast), 0.55 + 0.33 * overcast
    return Air(sun, direct * (1 - night), ambient * (1 - 0.5 * night), overcast, night)


def _horizon(air: Air) -> Colour:
    return mix(mix((0.80, 0.87, 0.94), (0.82, 0.83, 0.84), air.overcast), (0.10, 0.11, 0.15), air.night)


def hazed(colour: Colour, distance, air: Air) -> Colour:
    """Blends towards the horizon's colour with the air's transmission exp(-t / L)."""
    return mix(_horizon(air), colour, (-distance / (900 - 450 * air.overcast)).exp())


def sky_seen(look, ego, air: Air, pixel: torch.Tensor) -> Colour:
    """The sky along ego-frame rays (n, m) x 3: gradient, drifting clouds, sun, a line of distant woods."""
    direction = turned(look, ego)
    up = direction[2].clamp_min(0)
    rise = 1 - (1 - up.clamp_max(1)) ** 5
    colour = mix(_horizon(air), mix((0.30, 0.52, 0.84), (0.60, 0.63, 0.68), air.overcast), rise)
    colour = mix(colour, mix((0.97, 0.97, 0.98), (0.72, 0.74, 0.77), air.overcast), _clouds(direction, up, air))
    facing = dot(direction, air.sun).clamp_min(0)
    glow = (0.18 * facing**8 + 0.55 * facing**160 + 2.0 * ramp(facing, 0.9990, 0.9996)) * (1 - 0.85 * air.overcast)
    colour = mix(colour, (1.0, 0.97, 0.88), glow.clamp_max(1))
    colour = mix(colour, (0.03, 0.04, 0.08), air.night)
    woods = mix(mix((0.50, 0.60, 0.57), (0.60, 0.64, 0.64), air.overcast), (0.05, 0.06, 0.07), air.night)
    return mix(colour, woods, _woods(*direction, pixel))


def _clouds(direction, up, air: Air) -> torch.Tensor:
    """Coverage by clouds on a plane overhead, thinning out towards the horizon."""
    x, y, _ = direction
    u, v = x / (up + 0.16), y / (up + 0.16)
    puff = 0.55 * soft_noise(u, v, 1.3) + 0.30 * soft_noise(u + 17.0, v, 0.47) + 0.15 * soft_noise(u, v + 9.0, 0.17)
    return ramp(puff, 0.50, 0.78) * ramp(up, 0.02, 0.14) * (0.85 - 0.35 * air.overcast)


def _woods(x, y, z, pixel: torch.Tensor) -> torch.Tensor:
    """Coverage by the woods on the horizon."""
    level = torch.hypot(x, y).clamp_min(1e-6)
    u, v = x / level, y / level
    ridge = 0.010 + 0.028 * soft_noise(u, v, 0.31) + 0.007 * soft_noise(u, v, 0.021)
    return ((ridge - z) / pixel + 0.5).clamp(0, 1)
