"""Qwen3-VL's vision transformer: patches of equal images in, image tokens and DeepStack features out (spec section 3).

Each image attends to itself only, so N images of one grid are a batch of N sequences. Parameter names are the release's.
"""

from __future__ import annotations

import torch
import torch.nn.functional as nnf
from torch import nn

from alpamayo_r1.core.config import VisionConfig
from alpamayo_r1.core.transformer import Table

Grid = tuple[int, int]
"""Patches high and wide."""


def merge_order(grid: torch.Tensor, merge: int) -> torch.Tensor:
    """[h, w, ...] -> [h * w, ...] in merge-block order: 2 x 2 blocks row by row, inside a block row by row."""
    h, w = grid.shape[:2]
    return grid.unflatten(0, (h // merge, merge)).unflatten(2, (w // merge, merge)).transpose(1, 2).flatten(0, 3)


def grid_coordinates(grid: Grid, merge: int, device: torch.device) -> torch.Tensor:
    """Row and column of every patch in merge-block order: [h * w, 2]."""
    h, w = grid
    rows, columns = torch.meshgrid(torch.arange(h, device=device), torch.arange(w, device=device), indexing="ij")
    return merge_order(torch.stack([rows, columns], -1), merge)


def interpolate_positions(table: torch.Tensor, grid: Grid, merge: int) -> torch.Tensor:
    """The learned n x n position table, bilinearly resampled (corners aligned) to the grid in fp32, in merge-block order.

    table [n * n, hidden] -> [h * w, hidden] f32. transformers 5.x resamples in fp32 too; 4.57.1 did so in the weights' dtype.
    """
    side = round(table.shape[0] ** 0.5)
    (top, bottom, down), (left, right, across) = (neighbours(n, side, table.device) for n in grid)
    corners = [
        (top, left, 1 - down, 1 - across),
        (top, right, 1 - down, across),
        (bottom, left, down, 1 - across),
        (bottom, right, down, across),
    ]
    table = table.float()
    parts = [table[r[:, None] * side + c] * (wr[:, None] * wc)[..., None] for r, c, wr, wc in corners]
    return merge_order(parts[0] + parts[1] + parts[2] + parts[3], merge)


def neighbours(n: int, side: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """For n points spread over 0..side-1: the index below, the index above, and the weight of the one above, [n] each."""
    at = torch.linspace(0, side - 1, n, device=device)
    low = at.int()
    return low, (low + 1).clamp_max(side - 1), at - low


def vision_rope(grid: Grid, head_dim: int, merge: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """cos and sin [h * w, head_dim] f32: the first half of the frequencies turns with the row, the second with the column."""
    quarter = head_dim // 4
    inverse = 1.0 / 10000 ** (torch.arange(quarter, device=device).float() / quarter)
    angle = (grid_coordinates(grid, merge, device).float()[..., None] * inverse).flatten(1)
    angle = torch.cat([angle, angle], -1)
    return angle.cos(), angle.sin()


class PatchEmbed(nn.Module):
    """A 2 x 16 x 16 convolution with equal stride: patches [n, patch_dim] -> [n, hidden].

    On the CPU as a convolution, whose sums are the original's: a matrix product moves a recorded path of 98 m by 1.7e-4 m. On a GPU as the
    product it is, since PyTorch rounds convolutions, and them alone, to TF32 there: 2 cm in fp32.
    """

    def __init__(self, config: VisionConfig):
        super().__init__()
        self.size = (config.channels, config.temporal_patch, config.patch, config.patch)
        self.proj = nn.Conv3d(config.channels, config.hidden, self.size[1:], stride=self.size[1:])

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        patches = patches.to(self.proj.weight.dtype)
        if patches.is_cuda:
            return nnf.linear(patches, self.proj.weight.flatten(1), self.proj.bias)
        return self.proj(patches.view(-1, *self.size)).flatten(1)


class VisionAttention(nn.Module):
    """Full attention inside one image, rotary positions applied in fp32."""

    def __init__(self, config: VisionConfig):
        super().__init__()
        self.heads = config.heads
        self.qkv = nn.Linear(config.hidden, 3 * config.hidden)
        self.proj = nn.Linear(config.hidden, config.hidden)

    def forward(self, x: torch.Tensor, rope: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # (N, heads, P, d) each
        q, k = (rotate(y.float(), rope).to(v.dtype) for y in (q, k))
        return self.proj(nnf.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


def rotate(x: torch.Tensor, rope: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """Rotary embedding of x [N, heads, P, d] by tables [P, d]."""
    a, b = x.chunk(2, -1)
    return x * rope[0] + torch.cat([-b, a], -1) * rope[1]


class VisionMLP(nn.Module):
    """Two linear layers with a tanh-GELU between."""

    def __init__(self, config: VisionConfig):
        super().__init__()
        self.linear_fc1 = nn.Linear(config.hidden, config.intermediate)
        self.linear_fc2 = nn.Linear(config.intermediate, config.hidden)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear_fc2(nnf.gelu(self.linear_fc1(x), approximate="tanh"))


class VisionBlock(nn.Module):
    """Pre-norm attention and MLP, each with a residual."""

    def __init__(self, config: VisionConfig):
        super().__init__()
        self.norm1 = nn.LayerNorm(config.hidden, eps=1e-6)
        self.norm2 = nn.LayerNorm(config.hidden, eps=1e-6)
        self.attn = VisionAttention(config)
        self.mlp = VisionMLP(config)

    def forward(self, x: torch.Tensor, rope: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        x = x + self.attn(self.norm1(x), rope)
        return x + self.mlp(self.norm2(x))


class Merger(nn.Module):
    """Four neighbouring patches become one token of the language model. DeepStack mergers normalise after the shuffle, the last before."""

    def __init__(self, config: VisionConfig, norm_after: bool):
        super().__init__()
        self.width = config.hidden * config.merge**2
        self.norm_after = norm_after
        self.norm = nn.LayerNorm(self.width if norm_after else config.hidden, eps=1e-6)
        self.linear_fc1 = nn.Linear(self.width, self.width)
        self.linear_fc2 = nn.Linear(self.width, config.out_hidden)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, P, hidden] -> [N * P / 4, out_hidden]."""
        x = self.norm(x.reshape(-1, self.width)) if self.norm_after else self.norm(x).reshape(-1, self.width)
        return self.linear_fc2(nnf.gelu(self.linear_fc1(x)))


class Vision(nn.Module):
    """The tower."""

    def __init__(self, config: VisionConfig):
        super().__init__()
        self.config = config
        self.patch_embed = PatchEmbed(config)
        self.pos_embed = Table(config.positions, config.hidden)
        self.blocks = nn.ModuleList(VisionBlock(config) for _ in range(config.depth))
        self.merger = Merger(config, norm_after=False)
        self.deepstack_merger_list = nn.ModuleList(Merger(config, norm_after=True) for _ in config.deepstack)

    def forward(self, patches: torch.Tensor, grid: Grid) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Patches [N * h * w, 1536] of N images of one grid -> image tokens [N * h * w / 4, out_hidden], and DeepStack features alike."""
        c = self.config
        x = self.patch_embed(patches).view(-1, grid[0] * grid[1], c.hidden)
        x = x + interpolate_positions(self.pos_embed.weight, grid, c.merge).to(x.dtype)
        rope = vision_rope(grid, c.hidden // c.heads, c.merge, x.device)
        deep = []
        for i, block in enumerate(self.blocks):
            x = block(x, rope)
            if i in c.deepstack:
                deep.append(self.deepstack_merger_list[c.deepstack.index(i)](x))
        return self.merger(x), deep
