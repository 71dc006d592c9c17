"""Pictures of a prediction: pure functions, without any global state of matplotlib."""

from alpamayo_r1.draw.answers import answers_page
from alpamayo_r1.draw.overlay import Ribbon, overlay
from alpamayo_r1.draw.page import birds_eye, camera_grid, page, painted
from alpamayo_r1.draw.prices import prices_page
from alpamayo_r1.draw.style import png

__all__ = ["Ribbon", "answers_page", "birds_eye", "camera_grid", "overlay", "page", "painted", "png", "prices_page"]
