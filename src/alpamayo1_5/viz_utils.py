"""The original's `viz_utils`: the cameras' last frames in a grid, and three plans of one scene from above."""

from __future__ import annotations

import torch
from matplotlib.figure import Figure

PLACES = {6: (0, 1), 0: (1, 0), 1: (1, 1), 2: (1, 2), 3: (2, 0), 4: (2, 1), 5: (2, 2)}
"""Camera index -> row and column: the telephoto above, the front in the middle, the rear below."""

COLOURS = {"with": "#2a6fdb", "without": "#8a8f98", "swapped": "#d9622b"}
SPACE = 1.1
"""Room around the paths, as a factor on how far they go."""


def make_camera_grid(image_frames: torch.Tensor, camera_indices: torch.Tensor | None = None, ncols: int = 3) -> torch.Tensor:
    """The last frame of every camera: u8[C, K, 3, h, w] -> u8[rows * h, columns * w, 3], black where there is none.

    With camera_indices [C] each stands where it looks: 6 above, 0, 1, 2 below it, and 3, 4, 5 in a third row where there are any (others
    behind them); without, row by row in `ncols` columns.

    Raises:
        ValueError: frames of another shape, or not as many indices as cameras.
    """
    if image_frames.ndim != 5 or image_frames.shape[2] != 3:
        raise ValueError(f"image_frames have shape {tuple(image_frames.shape)}, expected [cameras, frames, 3, height, width]")
    last = image_frames[:, -1].permute(0, 2, 3, 1).cpu()
    count, h, w = last.shape[:3]
    if camera_indices is None:
        places = [divmod(i, ncols) for i in range(count)]
        shape = (-(-count // ncols), ncols)
    else:
        indices = [int(i) for i in camera_indices]
        if len(indices) != count:
            raise ValueError(f"{len(indices)} camera_indices for {count} cameras")
        others = [i for i in indices if i not in PLACES]
        places = [PLACES[i] if i in PLACES else (3 + others.index(i) // 3, others.index(i) % 3) for i in indices]
        shape = (max(2, 1 + max(row for row, _ in places)), 3)
    grid = torch.zeros(shape[0] * h, shape[1] * w, 3, dtype=torch.uint8)
    for picture, (row, column) in zip(last, places, strict=True):
        grid[row * h : (row + 1) * h, column * w : (column + 1) * w] = picture
    return grid


def plot_bev_comparison(
    pred_with_nav: torch.Tensor,
    pred_no_nav: torch.Tensor,
    pred_counterfactual: torch.Tensor | None,
    nav_text: str,
    nav_text_swapped: str | None,
    gt_future_xyz: torch.Tensor | None = None,
    camera_images: torch.Tensor | None = None,
    title: str = "",
    figsize: tuple[float, float] = (12, 10),
) -> Figure:
    """Plans f32[..., S, 64, 3] of one scene from above, side by side: with a navigation text, without, with the opposite text.

    The car stands at the bottom and looks up; all three share their scale. gt_future_xyz [..., 64, 3]: what was driven. camera_images:
    a picture u8[h, w, 3], or frames as `make_camera_grid` takes them, shown above.
    """
    panels = [("with", nav_text, pred_with_nav), ("without", "no navigation", pred_no_nav)]
    if pred_counterfactual is not None:
        panels.append(("swapped", nav_text_swapped or "", pred_counterfactual))
    figure = Figure(figsize=figsize, layout="constrained")
    figure.suptitle(title)
    rows = figure.subfigures(2, 1, height_ratios=[1, 1.3], squeeze=False)[:, 0] if camera_images is not None else [figure]
    if camera_images is not None:
        axes = rows[0].subplots()
        axes.imshow(make_camera_grid(camera_images) if camera_images.ndim == 5 else camera_images.cpu())
        axes.axis("off")
    every = [paths[..., :2].reshape(-1, 2) for _, _, paths in panels]
    every += [] if gt_future_xyz is None else [gt_future_xyz[..., :2].reshape(-1, 2)]
    points = torch.cat([points.cpu().float() for points in every])
    ahead, aside = points[:, 0].max().clamp_min(10).item(), points[:, 1].abs().max().clamp_min(5).item()
    shared = rows[-1].subplots(1, len(panels), sharex=True, sharey=True, squeeze=False)[0]
    for axes, (kind, text, paths) in zip(shared, panels, strict=True):
        for path in paths[..., :2].reshape(-1, *paths.shape[-2:-1], 2).cpu():
            axes.plot(-path[:, 1], path[:, 0], color=COLOURS[kind], alpha=0.6, linewidth=1.6)
        if gt_future_xyz is not None:
            truth = gt_future_xyz[..., :2].reshape(-1, 2).cpu()
            axes.plot(-truth[:, 1], truth[:, 0], color="black", linestyle="--", linewidth=1.2, label="driven")
            axes.legend(loc="lower right", frameon=False)
        axes.plot(0, 0, marker="^", color="black", markersize=9)
        axes.set(title=text, xlabel="to the right (m)", xlim=(-SPACE * aside, SPACE * aside), ylim=(-3, SPACE * ahead), aspect="equal")
        axes.grid(alpha=0.25)
    shared[0].set_ylabel("ahead (m)")
    return figure
