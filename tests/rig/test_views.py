"""Re-rendered views: what a nominal camera would see, from other cameras, without aliasing, with what is not seen known."""

from __future__ import annotations

import math

import pytest
import torch

from alpamayo_r1.core.geometry import Calibration
from alpamayo_r1.core.types import CAMERAS
from alpamayo_r1.rig.lenses import Pinhole, fisheye
from alpamayo_r1.rig.nominal import RIG, facing, resized
from alpamayo_r1.rig.views import GREY, view_of

pytestmark = pytest.mark.slow

FRONT = "camera_front_wide_120fov"
FISH = {
    name: Calibration(fisheye(800, 600, 260.0, 260.0, 401.0, 297.0, (0.01, -0.002, 0.0, 0.0)), (1.8, 0.0, 1.4), facing(yaw, 4.0))
    for name, yaw in (("ahead", 3.0), ("left", 65.0), ("right", -60.0))
}


def painted(camera: Calibration, colour) -> torch.Tensor:
    """A picture u8[1, 3, h, w] of a world whose colour depends on the direction in the ego frame alone."""
    lens = camera.lens
    y, x = torch.meshgrid(torch.arange(lens.height).double(), torch.arange(lens.width).double(), indexing="ij")
    ray = lens.rays(torch.stack([x, y], -1)) @ torch.tensor(camera.rot, dtype=torch.float64).T
    return colour(ray).permute(2, 0, 1)[None].nan_to_num(0).round().clamp(0, 255).to(torch.uint8)


def smooth(ray: torch.Tensor) -> torch.Tensor:
    return 127 + 100 * torch.sin(9 * ray)


@pytest.mark.parametrize("name", CAMERAS)
def test_a_view_shows_what_the_nominal_camera_sees(name):
    nominal = resized(RIG[name], 320, 180)
    view = view_of(nominal, FISH)
    assert view.coverage > 0.999
    seen = view.render({camera: painted(FISH[camera], smooth) for camera in FISH})
    off = (seen.float() - painted(nominal, smooth).float()).abs()
    assert off.median() <= 1 and off.max() <= 4


def test_a_grid_of_lines_lands_where_it_should():
    """Lines every 5 degrees: their centres in the view and in the nominal picture differ by half a pixel at most."""

    def lines(ray):
        angle = torch.rad2deg(torch.atan2(ray[..., 1], ray[..., 0]))
        off = (angle - 5 * (angle / 5).round()).abs()
        return (255 * (1 - off / 1.0).clamp(0, 1))[..., None].expand(*ray.shape)

    nominal = resized(RIG[FRONT], 640, 360)
    seen = view_of(nominal, FISH).render({camera: painted(FISH[camera], lines) for camera in FISH})[0, 0].double()
    want = painted(nominal, lines)[0, 0].double()
    x = torch.arange(640.0, dtype=torch.float64)
    for row in (60, 180, 300):
        for left in range(60, 560, 50):
            part = slice(left, left + 50)
            centre = [float((p[row, part] * x[part]).sum() / p[row, part].sum()) for p in (seen, want)]
            assert abs(centre[0] - centre[1]) < 0.5


def test_lines_on_the_road_are_where_the_nominal_camera_sees_them():
    """Cross lines every 2 m on a flat road, seen by a camera half a metre higher and to the side: within half a pixel, up to 14 m."""

    def road(camera: Calibration) -> torch.Tensor:
        def colour(ray):
            x = camera.position[0] + camera.position[2] * ray[..., 0] / (-ray[..., 2]).clamp_min(1e-6)
            off = (x - 2 * (x / 2).round()).abs()
            line = 255 * (1 - off / 0.5).clamp(0, 1) * ((ray[..., 2] < 0) & (x < 16))
            return line[..., None].expand(*ray.shape)

        return painted(camera, colour)

    higher = Calibration(Pinhole(640, 480, 310.0, 310.0, 320.0, 235.0), (1.5, 0.4, 1.93), facing(1.0, 5.0))
    nominal = resized(RIG[FRONT], 320, 180)
    wanted = road(nominal)[0, 0].double()
    off = {}
    for name, flat in (("road", True), ("far", False)):
        seen = view_of(nominal, {"higher": higher}, flat).render({"higher": road(higher)})[0, 0].double()
        off[name] = float((seen - wanted)[100:150, 125:195].abs().mean())
    assert off["road"] < 6 < 30 < off["far"]


def test_fine_stripes_are_averaged_not_aliased():
    """A tele picture eight times finer than the view: stripes of two pixels become grey, not a moire."""
    camera = Calibration(Pinhole(1600, 900, 4000.0, 4000.0, 799.5, 449.5), (1.8, 0.0, 1.4), facing(0.0, 1.5))
    picture = (255 * (torch.arange(1600) % 2)).expand(1, 3, 900, 1600).to(torch.uint8)
    view = view_of(resized(RIG[FRONT], 320, 180), {"tele": camera})
    seen = view.render({"tele": picture})
    (part,) = view.parts
    top, left, bottom, right = part.box
    inside = part.share > 0.999
    assert view.coverage == pytest.approx(float(inside.sum()) / (320 * 180), abs=0.01)
    assert (seen[0, 0, top:bottom, left:right][inside].float() - 127.5).abs().max() < 16 and part.reduce > 1


def test_what_no_camera_sees_is_grey_and_known():
    view = view_of(resized(RIG["camera_cross_left_120fov"], 320, 180), {"right": FISH["right"]})
    assert 0 < view.coverage < 0.5
    seen = view.render({"right": torch.full((2, 3, 600, 800), 255, dtype=torch.uint8)})
    assert set(seen.unique().tolist()) >= {GREY, 255} and float((seen == GREY).float().mean()) > 0.5
    nothing = view_of(resized(RIG[FRONT], 320, 180), {"back": Calibration(FISH["left"].lens.resized(80, 60), (0, 0, 1), facing(180, 0))})
    assert nothing.coverage < 0.01 and set(nothing.render({"back": torch.zeros(1, 3, 60, 80, dtype=torch.uint8)}).unique().tolist()) >= {
        GREY
    }


def test_the_sharper_camera_is_preferred():
    tele = Calibration(Pinhole(1280, 720, 2200.0, 2200.0, 640.0, 360.0), (1.8, 0.0, 1.4), facing(0.0, -1.0))
    view = view_of(resized(RIG["camera_front_tele_30fov"], 320, 180), FISH | {"tele": tele})
    assert view.cameras[0] == "tele"


def test_pictures_of_another_size_are_refused():
    view = view_of(resized(RIG[FRONT], 320, 180), FISH)
    with pytest.raises(ValueError, match="calibration is for 800 x 600"):
        view.render({camera: torch.zeros(1, 3, 300, 400, dtype=torch.uint8) for camera in FISH})


def test_the_nominal_rig_faces_where_it_says():
    ahead = torch.tensor(RIG[FRONT].rot)[:, 2]
    assert math.degrees(math.atan2(ahead[1], ahead[0])) == pytest.approx(0) and ahead[2] < 0
    left = torch.tensor(RIG["camera_cross_left_120fov"].rot)[:, 2]
    assert math.degrees(math.atan2(left[1], left[0])) == pytest.approx(57)
