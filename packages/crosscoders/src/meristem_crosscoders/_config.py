"""What a crosscoder is, in plain numbers."""

import math
from dataclasses import dataclass
from typing import Literal

Activation = Literal["jumprelu", "topk", "batchtopk", "relu"]
Gate = Literal["snapshot", "shared"]
CodeNorm = Literal["sum", "l2", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CrosscoderConfig:
    """Shape and activation of a crosscoder.

    Parameters
    ----------
    d_model
        Width of the activations at each snapshot.
    n_features
        Number of features F.
    steps
        Training steps of the snapshots, increasing; their number is S.
    activation
        "jumprelu" learns one threshold per feature; "topk" keeps the k largest scaled
        pre-activations per token, "batchtopk" k times the batch size of a batch; "relu" all > 0.
    k
        Active features per token for "topk" and "batchtopk", 1 to n_features; None for the others.
    gate
        "snapshot": a feature is open or shut at each snapshot; "shared": at all of them together.
    code_norm
        What scales a pre-activation before a shared gate: the sum or the Euclidean norm of the
        decoder norms over snapshots, or 1.
    encode_from
        Steps of the snapshots whose activations are encoded; None for all. All are decoded.
    threshold_init
        First JumpReLU threshold; > 0.
    ste_width
        Width of the rectangular window of the straight-through estimator; > 0.
    seed
        Of the initial directions.
    raw
        Whether it reads raw activations; set by `fold_normalisation` only.

    Raises
    ------
    ValueError
        If a number is out of range.
    """

    d_model: int
    n_features: int
    steps: tuple[int, ...]
    activation: Activation = "jumprelu"
    k: int | None = None
    gate: Gate = "snapshot"  # the authors' code; the paper writes one code for all snapshots
    code_norm: CodeNorm = "sum"
    encode_from: tuple[int, ...] | None = None
    threshold_init: float = 0.1
    ste_width: float = 4.0  # the authors' script; Anthropic's January 2025 note has 2
    seed: int = 0
    raw: bool = False

    def __post_init__(self) -> None:
        for name in ("d_model", "n_features"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} ({getattr(self, name)}) must be at least 1")
        if not self.steps or any(a >= b for a, b in zip(self.steps, self.steps[1:], strict=False)):
            raise ValueError(f"steps {self.steps} must increase and not be empty; sort them")
        for name in ("threshold_init", "ste_width"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} ({getattr(self, name)}) must be positive and finite")
        self._check_k()
        if self.encode_from is not None and not self.encoded:
            raise ValueError(
                f"encode_from {self.encode_from} must name some of steps {self.steps}, each once; "
                "leave it out to encode all"
            )

    @property
    def encoded(self) -> tuple[int, ...]:
        """Indices of the snapshots that are encoded; none if `encode_from` names another step."""
        chosen = self.steps if self.encode_from is None else self.encode_from
        if len(set(chosen)) != len(chosen) or not set(chosen) <= set(self.steps):
            return ()
        return tuple(s for s, step in enumerate(self.steps) if step in chosen)

    def _check_k(self) -> None:
        selects = self.activation in ("topk", "batchtopk")
        if not selects and self.k is not None:
            raise ValueError(f"k ({self.k}) has no meaning for {self.activation}; leave it out")
        if selects and (self.k is None or not 1 <= self.k <= self.n_features):
            raise ValueError(
                f"k ({self.k}) must lie between 1 and n_features ({self.n_features}) "
                f"for {self.activation}"
            )
