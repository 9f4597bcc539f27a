"""LyCORIS' adapters whose change of a weight is a product of factors: LoKr (Kronecker) and LoHa (Hadamard).

Both are described in Yeh et al. 2023 (arXiv:2309.14859, section 3), after FedPara (Hyeon-Woo et al. 2021).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch

from dbcli.diffusion.formats.factor_names import LOHA
from dbcli.errors import BaseMissing, OtherBase, UnsafeFile

ProductKind = Literal["lokr", "loha"]
TITLES: dict[ProductKind, str] = {"lokr": "LoKr", "loha": "LoHa"}
Factors = Mapping[str, torch.Tensor]


def kind_of_factors(factors: Mapping[str, object]) -> ProductKind:
    """LoHa where the names are Hadamard's."""
    return "loha" if any(name in LOHA for name in factors) else "lokr"


@dataclass(frozen=True)
class ProductLayer:
    """One addition that is a product: W + scale · (w1 ⊗ w2) for LoKr, W + scale · (w1 ∘ w2) for LoHa.

    `factors` are those of `factor_names.LOKR` or `LOHA` that there are. Each of the two matrices is whole (`lokr_w1`
    `[a, b]`, `lokr_w2` `[c, d]`, a convolution's with the kernel behind, of a weight with a c outputs and b d inputs),
    or a product of two (`_a` `[out, rank]`, `_b` `[rank, in]`, the kernel among its inputs), or has a Tucker core
    `[rank, rank, k, k]` between two factors `[rank, out]` and `[rank, in]`. With `magnitude` it is rescaled as a DoRA
    is (see `LoraLayer`).
    """

    factors: dict[str, torch.Tensor]
    alpha: float
    magnitude: torch.Tensor | None = None
    by_input: bool = False

    @property
    def kind(self) -> ProductKind:
        return kind_of_factors(self.factors)

    @property
    def rank(self) -> int:
        """That of the factors; where both matrices are whole, the highest that the second can have."""
        found = rank_of(self.factors)
        return min(self.factors["lokr_w2"].shape[:2]) if found is None else found

    @property
    def scale(self) -> float:
        """alpha / rank; 1 where both of LoKr's matrices are whole, as LyCORIS and ComfyUI have it."""
        rank = rank_of(self.factors)
        return 1.0 if rank is None else self.alpha / rank

    @property
    def tensors(self) -> dict[str, torch.Tensor]:
        """All of its tensors by name."""
        return self.factors | ({} if self.magnitude is None else {"magnitude": self.magnitude})

    def each(self, change: Callable[[torch.Tensor], torch.Tensor]) -> ProductLayer:
        """The same with every tensor changed."""
        factors = {name: change(factor) for name, factor in self.factors.items()}
        return replace(self, factors=factors, magnitude=None if self.magnitude is None else change(self.magnitude))

    def addition(self, shape: Sequence[int]) -> torch.Tensor:
        """scale · product, of the weight's shape; DoRA's lengths are not in it."""
        return self.scale * product(self.factors, shape)


def without_core(layer: ProductLayer) -> ProductLayer:
    """The same addition with LoKr's Tucker core multiplied into the factor for the inputs; LoHa as it is."""
    if "lokr_t2" not in layer.factors:
        return layer
    factors = {name: factor for name, factor in layer.factors.items() if name != "lokr_t2"}
    inner = torch.einsum("ijkl,jr->irkl", layer.factors["lokr_t2"], factors["lokr_w2_b"]).flatten(1)
    return replace(layer, factors=factors | {"lokr_w2_a": factors["lokr_w2_a"].T.contiguous(), "lokr_w2_b": inner})


def strength_in_factor(layer: ProductLayer) -> ProductLayer:
    """The same addition with alpha = rank: its strength is in the first factor."""
    first, scale = next(iter(layer.factors)), layer.scale
    if scale == 1:
        return replace(layer, alpha=float(rank_of(layer.factors) or 1))
    factors = layer.factors | {first: layer.factors[first] * scale}
    return replace(layer, factors=factors, alpha=float(layer.rank))


def rank_of(factors: Factors) -> int | None:
    """The rank that alpha is divided by; None where no factor has one."""
    inner = next((name for name in ("lokr_w2_b", "lokr_w1_b", "hada_w1_b") if name in factors), None)
    return None if inner is None else int(factors[inner].shape[0])


def product(factors: Factors, shape: Sequence[int]) -> torch.Tensor:
    """What the factors come to, of a weight's shape `[out, in]` or `[out, in, k, k]`, before it is scaled."""
    first, second = matrices(factors, shape[2:])
    if kind_of_factors(factors) == "loha":
        return (first * second).reshape(tuple(shape))
    ones = [1] * (second.dim() - first.dim())
    # `kron` takes no matrix whose dimensions an einsum has turned round.
    return torch.kron(first.reshape(*first.shape, *ones), second.contiguous()).reshape(tuple(shape))


def matrices(factors: Factors, kernel: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Both matrices of the product: LoKr's `[a, b]` and `[c, d, *kernel]`, LoHa's two of `[out, in, *kernel]`."""
    if kind_of_factors(factors) == "loha":
        return _matrix(factors, "hada_w1", "hada_t1", kernel), _matrix(factors, "hada_w2", "hada_t2", kernel)
    return _matrix(factors, "lokr_w1", "", ()), _matrix(factors, "lokr_w2", "lokr_t2", kernel)


def _matrix(factors: Factors, name: str, core: str, kernel: Sequence[int]) -> torch.Tensor:
    whole = factors.get(name)
    if whole is None:
        outer, inner = factors[f"{name}_a"], factors[f"{name}_b"]
        if core in factors:
            return torch.einsum("ijkl,ip,jr->prkl", factors[core], outer, inner)
        whole = outer @ inner.flatten(1)
    return whole.reshape(whole.shape[0], -1, *kernel)


def check_factors(name: str, factors: Factors, weight: Sequence[int], file: str) -> None:
    """Refuses factors that do not multiply to a weight's shape.

    Raises BaseMissing where one is missing, UnsafeFile where they contradict each other, UnsupportedFile for another
    base's.
    """
    kind, kernel = kind_of_factors(factors), tuple(weight[2:])
    missing = _missing(factors, kind)
    if missing:
        raise BaseMissing(
            f"{file}: the layer {name} has no {missing}, without which its other factors are nothing.",
            hint="Download it again; it may be incomplete.",
        )
    shapes = ", ".join(f"{key} {list(factor.shape)}" for key, factor in factors.items())
    doubled = next((key for key in factors if f"{key}_a" in factors or f"{key}_b" in factors), None)
    if doubled or ("lokr_t2" in factors and "lokr_w2" in factors):
        raise UnsafeFile(f"{file}: {name} has {doubled or 'lokr_w2'} whole and in parts ({shapes}).")
    ranks = {int(factors[key].shape[0]) for key in factors if key.endswith("_b") and factors[key].dim() > 1}
    try:
        first, second = matrices({key: factor.to("meta") for key, factor in factors.items()}, kernel)
    except (RuntimeError, IndexError) as fault:
        raise UnsafeFile(f"{file}: the factors of {name} do not fit each other ({shapes}).") from fault
    if len(ranks) > 1 or 0 in ranks or (kind == "loha" and first.shape != second.shape):
        raise UnsafeFile(f"{file}: the factors of {name} do not fit each other ({shapes}).")
    found = [*first.shape[:2]]
    if kind == "lokr":
        found = [first.shape[0] * second.shape[0], first.shape[1] * second.shape[1]]
    if (found, tuple(second.shape[2:])) != ([*weight[:2]], kernel):
        raise OtherBase(
            f"{file} was made for another base: {name} is {list(weight[:2])} here and {found} there.",
            hint=f"Choose the base that the {TITLES[kind]} was trained on.",
        )


def _missing(factors: Factors, kind: ProductKind) -> str:
    """The factor that is not there; "" where both matrices can be made."""
    both = ("hada_w1", "hada_w2") if kind == "loha" else ("lokr_w1", "lokr_w2")
    for name in both:
        halves = [f"{name}_a", f"{name}_b"]
        absent = [half for half in halves if half not in factors]
        if name not in factors and absent:
            return absent[0] if kind == "loha" or len(absent) == 1 else f"{name} or {halves[0]}"
    cores = [core for core in ("hada_t1", "hada_t2") if core in factors]
    return "" if len(cores) != 1 else next(core for core in ("hada_t1", "hada_t2") if core not in cores)
