"""Latitude, longitude and height on the WGS84 ellipsoid <-> east, north, up about an origin."""

from __future__ import annotations

import numpy as np

A, F = 6378137.0, 1 / 298.257223563
"""Equatorial radius in metres and flattening of the ellipsoid."""
E2 = F * (2 - F)


def ecef(place: np.ndarray) -> np.ndarray:
    """Latitude and longitude in degrees, height in metres [..., 3] -> earth-centred x, y, z in metres [..., 3].

    N = A / sqrt(1 - E2 sin^2 lat);  ((N + h) cos lat cos lon, (N + h) cos lat sin lon, (N (1 - E2) + h) sin lat)
    """
    lat, lon, height = np.radians(place[..., 0]), np.radians(place[..., 1]), place[..., 2]
    n = A / np.sqrt(1 - E2 * np.sin(lat) ** 2)
    return np.stack(
        [(n + height) * np.cos(lat) * np.cos(lon), (n + height) * np.cos(lat) * np.sin(lon), (n * (1 - E2) + height) * np.sin(lat)], -1
    )


def axes_at(origin: np.ndarray) -> np.ndarray:
    """Rows east, north, up at a place, in earth-centred axes: [3, 3]."""
    lat, lon = np.radians(origin[:2])
    return np.array(
        [
            [-np.sin(lon), np.cos(lon), 0.0],
            [-np.sin(lat) * np.cos(lon), -np.sin(lat) * np.sin(lon), np.cos(lat)],
            [np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)],
        ]
    )


def to_enu(place: np.ndarray, origin: np.ndarray) -> np.ndarray:
    """Places [T, 3] (lat, lon, height) -> east, north, up of an origin (lat, lon, height), metres [T, 3]."""
    return (ecef(place) - ecef(origin)) @ axes_at(origin).T


def from_enu(enu: np.ndarray, origin: np.ndarray) -> np.ndarray:
    """The inverse of to_enu, to a micrometre: latitude by fixed point of tan lat = z / (p (1 - E2 N / (N + h)))."""
    x, y, z = np.moveaxis(enu @ axes_at(origin) + ecef(origin), -1, 0)
    p = np.hypot(x, y)
    lat = np.arctan2(z, p * (1 - E2))
    height = np.zeros_like(lat)
    for _ in range(8):
        n = A / np.sqrt(1 - E2 * np.sin(lat) ** 2)
        height = p * np.cos(lat) + z * np.sin(lat) - A * np.sqrt(1 - E2 * np.sin(lat) ** 2)
        lat = np.arctan2(z, p * (1 - E2 * n / (n + height)))
    return np.stack([np.degrees(lat), np.degrees(np.arctan2(y, x)), height], -1)
