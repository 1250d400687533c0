"""Statistics of a stream that is never held: moments exactly, quantiles within a relative error.

- both can be merged, so a stream may be cut over processes in any way
- both turn into plain JSON values and back without loss, so they survive a checkpoint
- values that are not finite are refused, not skipped
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float


@dataclass(frozen=True, slots=True, kw_only=True)
class Moments:
    """Count, mean and variance of the values seen.

    Notes
    -----
    Merging two parts adds n_a n_b / (n_a + n_b) (mean_b - mean_a)**2 to their sums of squared
    deviations (Chan, Golub and LeVeque 1983), which never subtracts large numbers.

    Examples
    --------
    >>> seen = Moments().update(np.array([1.0, 2.0])).update(np.array([3.0]))
    >>> seen.count, seen.mean, seen.variance(ddof=1)
    (3, 2.0, 1.0)
    """

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0  # sum of squared deviations from the mean

    def update(self, values: Float[np.ndarray, " n"]) -> "Moments":
        """Return the moments of the values seen and these, shape (n,), all finite."""
        _refuse_non_finite(values)
        if not values.size:
            return self
        mean = float(values.mean(dtype=np.float64))
        squares = float(((values - mean) ** 2).sum(dtype=np.float64))
        return self.merge(Moments(count=values.size, mean=mean, squares=squares))

    def merge(self, other: "Moments") -> "Moments":
        """Return the moments of both parts together."""
        count = self.count + other.count
        if not count:
            return self
        gap, share = other.mean - self.mean, other.count / count
        return Moments(
            count=count,
            mean=self.mean + gap * share,
            squares=self.squares + other.squares + gap * gap * self.count * share,
        )

    def variance(self, *, ddof: int = 0) -> float:
        """Return the variance with the divisor count - ddof, which must be positive."""
        if self.count <= ddof:
            raise ValueError(f"{self.count} values have no variance with ddof ({ddof}); give more")
        return self.squares / (self.count - ddof)

    def to_json(self) -> dict[str, int | float]:
        """Return plain values for `from_json`."""
        return asdict(self)

    @classmethod
    def from_json(cls, state: Mapping[str, int | float]) -> "Moments":
        """Return the moments that `to_json` wrote."""
        return cls(count=int(state["count"]), mean=state["mean"], squares=state["squares"])


@dataclass(slots=True, kw_only=True)
class Quantiles:
    """A sketch that gives any quantile of the values seen within a relative error.

    Notes
    -----
    A value x > 0 is counted in bucket ceil(log(x) / log(g)) with g = (1 + error) / (1 - error);
    2 g**i / (g + 1) is within `error` of every value in bucket i. Negative values have buckets of
    their own, and |x| below the smallest normal number counts as 0.

    References
    ----------
    Masson, Rim and Lee 2019, "DDSketch", arXiv 1908.10693, section 2.

    Examples
    --------
    >>> seen = Quantiles(error=0.01)
    >>> seen.update(np.arange(1.0, 1001.0))
    >>> abs(seen.quantile(0.5) - 500) <= 5
    True
    """

    error: float = 0.01  # relative, in (0, 1)
    zeros: int = 0
    positive: dict[int, int] = field(default_factory=dict[int, int])
    negative: dict[int, int] = field(default_factory=dict[int, int])

    def __post_init__(self) -> None:
        """Refuse an error outside (0, 1)."""
        if not 0 < self.error < 1:
            raise ValueError(f"error ({self.error}) must lie in (0, 1), such as 0.01")

    @property
    def count(self) -> int:
        """Return how many values were seen."""
        return self.zeros + sum(self.positive.values()) + sum(self.negative.values())

    def update(self, values: Float[np.ndarray, " n"]) -> None:
        """Count values, shape (n,), all finite."""
        _refuse_non_finite(values)
        size = np.abs(values).astype(np.float64)
        nothing = size < np.finfo(np.float64).tiny
        self.zeros += int(nothing.sum())
        for buckets, here in (
            (self.positive, (values > 0) & ~nothing),
            (self.negative, (values < 0) & ~nothing),
        ):
            index = np.ceil(np.log(size[here]) / self._log_growth()).astype(np.int64)
            for bucket, times in zip(*np.unique(index, return_counts=True), strict=True):
                buckets[int(bucket)] = buckets.get(int(bucket), 0) + int(times)

    def merge(self, other: "Quantiles") -> None:
        """Count what another sketch of the same error has seen."""
        if self.error != other.error:
            raise ValueError(
                f"sketches of error {self.error} and {other.error} cannot be merged; use one error"
            )
        self.zeros += other.zeros
        for mine, theirs in ((self.positive, other.positive), (self.negative, other.negative)):
            for bucket, times in theirs.items():
                mine[bucket] = mine.get(bucket, 0) + times

    def quantile(self, q: float) -> float:
        """Return the lower q-quantile, q in [0, 1], within the relative error."""
        if not 0 <= q <= 1:
            raise ValueError(f"q ({q}) must lie in [0, 1]")
        if not self.count:
            raise ValueError("no value has been seen; update the sketch before asking it")
        left = math.floor(q * (self.count - 1))
        ordered = [
            *(
                (-self._middle(bucket), self.negative[bucket])
                for bucket in sorted(self.negative)[::-1]
            ),
            (0.0, self.zeros),
            *((self._middle(bucket), self.positive[bucket]) for bucket in sorted(self.positive)),
        ]
        for value, times in ordered:
            if left < times:
                return value
            left -= times
        raise AssertionError("the ranks of all buckets add up to the count")

    def to_json(self) -> dict[str, Any]:
        """Return plain values for `from_json`."""
        return {
            "error": self.error,
            "zeros": self.zeros,
            "positive": sorted(self.positive.items()),
            "negative": sorted(self.negative.items()),
        }

    @classmethod
    def from_json(cls, state: Mapping[str, Any]) -> "Quantiles":
        """Return the sketch that `to_json` wrote."""
        return cls(
            error=float(state["error"]),
            zeros=int(state["zeros"]),
            positive=dict(map(tuple, state["positive"])),
            negative=dict(map(tuple, state["negative"])),
        )

    def _log_growth(self) -> float:
        return math.log1p(self.error) - math.log1p(-self.error)

    def _middle(self, bucket: int) -> float:
        growth = self._log_growth()
        # exp may only overflow where the value itself was within a factor g of the largest float
        return min(2 / (1 + math.exp(growth)) * math.exp(min(bucket * growth, 709.78)), 1.7e308)


def _refuse_non_finite(values: np.ndarray) -> None:
    bad = np.flatnonzero(~np.isfinite(values))
    if bad.size:
        raise ValueError(f"values[{bad[0]}] is {values[bad[0]]}; drop or repair it first")
