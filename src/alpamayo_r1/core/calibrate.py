"""Weights of few bits that know what they will be multiplied by (GPTQ): each column makes up for the errors of those before it.

    x w^T of the inputs x that were seen changes least for codes that lower  sum (w - w') H (w - w')^T,  H = sum x^T x

Scales and zero points are those of `quantise`, each column weighed by its share of H's diagonal; only codes differ, so what is stored
looks as before.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import nn

from alpamayo_r1.core.precision import Precision
from alpamayo_r1.core.quantised import E4M3_MAX, Kind, Quantised, Scheme, pack_halves, quantise, stacked
from alpamayo_r1.core.vla import VLA

BLOCK = 128
"""Columns whose errors reach the columns behind them together."""

DAMPING = (0.01, 0.1, 1.0)
"""Shares of the diagonal's mean that are added to it: the first for which H can be inverted."""

ROWS_BYTES = 2**30
"""Bytes of fp32 numbers that are looked at together."""

TOGETHER = {"k_proj": "q_proj", "v_proj": "q_proj", "up_proj": "gate_proj"}
"""Products that read what another one reads."""


def calibrated(
    model: VLA, precision: Precision, replay: Callable[[], None], room: float, advance: Callable[[], None] = lambda: None
) -> dict[str, Quantised]:
    """A model's weights of a precision by their names, on the CPU, for what `replay` multiplies them by: it runs the model.

    room: bytes for sums of products of inputs; where all take more, `replay` runs several times, for some layers each. advance: called
    after each weight. What is never multiplied is left out.
    """
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    schemes = precision.schemes(shapes)
    made: dict[str, Quantised] = {}
    for names in passes({name: shapes[name][1] for name in schemes}, room):
        with input_products(model, {source_of(name) for name in names}) as products:
            replay()
        for source in dict.fromkeys(map(source_of, names)):
            factor = Factor.of(products.pop(source)) if source in products else None
            for name in names:
                if source_of(name) == source:
                    if factor is not None:
                        made[name] = on_cpu(compensated(model.get_parameter(name).detach(), schemes[name], factor))
                    advance()
    return made


def source_of(name: str) -> str:
    """The weight whose inputs a weight of this name has: the first of those that read the same."""
    path, _, leaf = name.removesuffix(".weight").rpartition(".")
    return f"{path}.{TOGETHER.get(leaf, leaf)}.weight"


def passes(widths: Mapping[str, int], room: float) -> Iterator[list[str]]:
    """Names of weights, in groups whose sums of products take at most so many bytes; one source at least. widths: columns by name."""
    group: list[str] = []
    used, sources = 0, set()
    for name, width in sorted(widths.items(), key=lambda one: (layer_of(one[0]), source_of(one[0]))):
        size = 0 if source_of(name) in sources else 4 * width**2
        if group and size and used + size > room:
            yield group
            group, used, sources, size = [], 0, set(), 4 * width**2
        group.append(name)
        sources.add(source_of(name))
        used += size
    if group:
        yield group


def layer_of(name: str) -> tuple[str, int]:
    """A weight's part of the model and its layer there."""
    part, _, rest = name.partition(".layers." if ".layers." in name else ".blocks.")
    return part, int(rest.partition(".")[0] or 0)


@contextmanager
def input_products(model: VLA, names: Collection[str]) -> Iterator[dict[str, torch.Tensor]]:
    """Inside, the specification's products with these weights note what they read: fills a dict of x^T x f32[K, K], by name."""
    products: dict[str, torch.Tensor] = {}

    def noting(name: str) -> Callable[[nn.Module, tuple[torch.Tensor, ...]], None]:
        def note(module: nn.Module, given: tuple[torch.Tensor, ...]) -> None:
            rows = given[0].detach().flatten(0, -2).float()
            products[name] = products[name].addmm_(rows.T, rows) if name in products else rows.T @ rows

        return note

    modules = [(name, model.get_submodule(name.removesuffix(".weight"))) for name in names]
    handles = [module.register_forward_pre_hook(noting(name)) for name, module in modules]
    try:
        yield products
    finally:
        for handle in handles:
            handle.remove()


@dataclass(frozen=True)
class Factor:
    """What sums of products of inputs say to GPTQ."""

    order: torch.Tensor  # i64[K]: columns, those with the largest inputs first
    upper: torch.Tensor  # f32[K, K]: of H in that order, U with U^T U = H^-1
    importance: torch.Tensor  # f32[K]: H's diagonal

    @classmethod
    def of(cls, products: torch.Tensor) -> Factor:
        """The factor of sums of x^T x [K, K].

        Raises:
            ValueError: inputs that are not finite.
        """
        importance = products.diagonal().clone()
        order = importance.argsort(descending=True, stable=True)
        for share in DAMPING:
            damped = products[order][:, order]
            damped.diagonal().add_(share * importance.mean().clamp_min(1e-12))
            lower, failed = torch.linalg.cholesky_ex(damped)
            if not failed and lower.isfinite().all():
                upper = torch.linalg.cholesky_ex(torch.cholesky_inverse(lower), upper=True)
                if not upper.info and upper.L.isfinite().all():
                    return cls(order, upper.L, importance)
        raise ValueError("what a layer read in the calibration is not finite: check the clips, `alpamayo-r1 inspect`")


def compensated(weight: torch.Tensor, scheme: Scheme, factor: Factor) -> Quantised:
    """A weight [N, K] in few bits by GPTQ. Rows do not see each other."""
    return stacked([_compensated(some, scheme, factor) for some in weight.split(max(1, ROWS_BYTES // (4 * weight.shape[1])))])


def _compensated(weight: torch.Tensor, scheme: Scheme, factor: Factor) -> Quantised:
    made = quantise(weight, scheme, factor.importance)
    (n, k), order, upper = weight.shape, factor.order, factor.upper
    groups = order // made.group
    scale = made.scale.float()
    zero = torch.zeros_like(scale) if made.zero is None else made.zero.float()
    left, codes = weight.float()[:, order], torch.empty(n, k, device=weight.device)
    for start in range(0, k, BLOCK):
        end = min(start + BLOCK, k)
        block, errors = left[:, start:end], torch.empty(n, end - start, device=weight.device)
        for i in range(end - start):
            at = groups[start + i]
            codes[:, start + i] = code = nearest_code(block[:, i] / scale[at] + zero[at], scheme.kind)
            errors[:, i] = error = (block[:, i] - (code - zero[at]) * scale[at]) / upper[start + i, start + i]
            block[:, i + 1 :].addr_(error, upper[start + i, start + i + 1 : end], alpha=-1)
        left[:, end:].addmm_(errors, upper[start:end, end:], alpha=-1)
    return replace(made, codes=stored_codes(torch.empty_like(codes).index_copy_(1, order, codes), scheme))


def nearest_code(numbers: torch.Tensor, kind: Kind) -> torch.Tensor:
    """The nearest codes of a kind to numbers in its units, as fp32."""
    if kind == "e4m3":
        return numbers.clamp(-E4M3_MAX, E4M3_MAX).to(torch.float8_e4m3fn).float()
    return numbers.round().clamp(*((0, 15) if kind == "int4" else (-127, 127)))


def stored_codes(codes: torch.Tensor, scheme: Scheme) -> torch.Tensor:
    """Codes [N, K] as `Quantised` holds them."""
    if scheme.kind == "int4":
        return pack_halves(codes.to(torch.uint8), scheme.block(codes.shape[1]))
    return codes.to(torch.float8_e4m3fn if scheme.kind == "e4m3" else torch.int8)


def on_cpu(weight: Quantised) -> Quantised:
    """The same weight on the CPU."""
    zero = None if weight.zero is None else weight.zero.cpu()
    return replace(weight, codes=weight.codes.cpu(), scale=weight.scale.cpu(), zero=zero)
