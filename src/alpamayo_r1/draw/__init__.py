"""Pictures of a prediction: pure functions, without any global state of matplotlib."""

from .overlay import Ribbon, overlay
from .page import birds_eye, camera_grid, page, painted
from .style import png

__all__ = ["Ribbon", "birds_eye", "camera_grid", "overlay", "page", "painted", "png"]
