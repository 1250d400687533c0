"""How sure a model was, from its own log-probabilities.

- token confidence: minus the mean log-probability of the k likeliest tokens; larger is more peaked
- windows of one width slide by one token; one cumulative sum serves all of them
- values from different k, or windows of different width, cannot be compared
"""

from collections import deque
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

WIDTH, TOP = 2048, 20  # arXiv 2508.15260
ROUNDING = 1e-9  # nats, of sums over a window; a mean that close to a threshold is not below it


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowConfidence:
    """Confidence of a trace.

    Attributes
    ----------
    lowest
        Least mean of a window.
    bottom
        Mean over the windows with the lowest means.
    tail
        Mean of the last window.
    mean
        Mean over all tokens.
    """

    lowest: float
    bottom: float
    tail: float
    mean: float


def token_confidence(top_logprobs: Float[np.ndarray, "t k"]) -> Float[np.ndarray, " t"]:
    """Return minus the mean log-probability (nats) of the k likeliest tokens at each position.

    References
    ----------
    DeepConf, arXiv 2508.15260.
    """
    _check(top_logprobs)
    return -top_logprobs.mean(1)


def confidence_of(logprobs: Float[np.ndarray, " v"], top: int) -> float:
    """Return the confidence of one token from the log-probabilities of the whole vocabulary.

    Raises
    ------
    ValueError
        If fewer than `top` tokens have a chance.
    """
    possible = int(np.isfinite(logprobs).sum())
    if top > possible:
        raise ValueError(
            f"the confidence of the {top} likeliest tokens is asked for, {possible} of "
            f"{logprobs.size} have a chance; ask for fewer"
        )
    return -float(np.partition(logprobs, -top)[-top:].mean())


class Window:
    """The window over the last `width` values of a trace, while it grows."""

    __slots__ = ("_least", "_total", "_values", "_width")

    def __init__(self, width: int, least: float | None) -> None:
        self._width, self._least = width, least
        self._values, self._total = deque[float](), 0.0

    def falls(self, value: float) -> bool:
        """Take the next value; return whether the window is full and its mean below `least`."""
        if self._least is None:
            return False
        self._values.append(value)
        self._total += value
        if len(self._values) > self._width:
            self._total -= self._values.popleft()
        return (
            len(self._values) == self._width and self._total / self._width < self._least - ROUNDING
        )


def window_means(
    confidence: Float[np.ndarray, " t"], width: int = WIDTH
) -> Float[np.ndarray, " w"]:
    """Return the mean of each window of `width` tokens; one window if the trace is shorter."""
    if confidence.size == 0 or width < 1:
        raise ValueError(f"{confidence.size} tokens, width {width}; both must be at least 1")
    if not np.isfinite(confidence).all():
        raise ValueError(f"confidence[{int(np.argmin(np.isfinite(confidence)))}] is not finite")
    width = min(width, confidence.size)
    values = confidence.astype(np.float64)
    center = values.mean()  # sums of small deviations lose fewer digits
    total = np.empty(values.size + 1)
    total[0] = 0.0
    np.cumsum(values - center, out=total[1:])
    return center + (total[width:] - total[:-width]) / width


def window_confidence(
    confidence: Float[np.ndarray, " t"], width: int = WIDTH, bottom: float = 0.1
) -> WindowConfidence:
    """Return the confidence of a trace by its windows.

    Parameters
    ----------
    confidence
        Of each token, as `token_confidence` gives it; at least one.
    width
        Tokens in a window.
    bottom
        Share of the windows that `bottom` averages, in (0, 1]; at least one window.

    Raises
    ------
    ValueError
        If there is no token, a value is not finite, or a parameter is out of range.

    References
    ----------
    DeepConf, arXiv 2508.15260.

    Examples
    --------
    >>> found = window_confidence(np.array([4.0, 1.0, 1.0, 4.0]), width=2)
    >>> found.lowest, found.tail, found.mean
    (1.0, 2.5, 2.5)
    """
    if not 0 < bottom <= 1:
        raise ValueError(f"bottom ({bottom}) must lie in (0, 1]")
    means = window_means(confidence, width)
    count = max(int(bottom * means.size), 1)
    low = np.partition(means, count - 1)[:count]
    return WindowConfidence(
        lowest=float(low.min()),
        bottom=float(low.mean()),
        tail=float(means[-1]),
        mean=float(confidence.mean(dtype=np.float64)),
    )


def self_certainty(logprobs: Float[np.ndarray, "t v"]) -> float:
    """Return the mean divergence KL(uniform || p) in nats over the positions.

    Parameters
    ----------
    logprobs
        Of the whole vocabulary; each row is normalised.

    References
    ----------
    arXiv 2502.18581.
    """
    _check(logprobs)
    mass = np.exp(logprobs).sum(1)
    if np.abs(mass - 1).max() > 1e-3:
        row = int(np.abs(mass - 1).argmax())
        raise ValueError(f"row {row} has the mass {mass[row]:.4g}; give the whole vocabulary")
    return float(-logprobs.mean() - np.log(logprobs.shape[1]))


def entropy_bound(top_logprobs: Float[np.ndarray, "t k"]) -> Float[np.ndarray, " t"]:
    """Return the least entropy (nats) that each token can have whose k likeliest are these.

    It is the entropy where they are the whole vocabulary, as `meristem_core.softmax_entropy` gives
    it, and grows with k: compare values of one k only.

    Notes
    -----
    With m = 1 - sum p, and none of the others likelier than the last of the k: H >= -sum p ln p -
    m ln min p.

    Examples
    --------
    >>> entropy_bound(np.log([[0.5, 0.25], [0.5, 0.5]])).round(4)
    array([1.0397, 0.6931])
    """
    _check(top_logprobs)
    chances = np.exp(top_logprobs)
    rest = 1 - chances.sum(1)
    if rest.min() < -1e-3:
        row = int(rest.argmin())
        raise ValueError(f"row {row} has the mass {1 - rest[row]:.4g}; give chances of one token")
    own = -(chances * top_logprobs).sum(1)
    return own - np.maximum(rest, 0.0) * top_logprobs.min(1)


def early_stop_threshold(lowest: Float[np.ndarray, " n"], keep: float = 0.9) -> float:
    """Return the window confidence below which a trace is stopped.

    Parameters
    ----------
    lowest
        `WindowConfidence.lowest` of the warm-up traces (the source uses 16).
    keep
        Share of the warm-ups that would not have been stopped, in (0, 1).

    References
    ----------
    DeepConf, arXiv 2508.15260: the percentile 100 - eta.
    """
    if not 0 < keep < 1:
        raise ValueError(f"keep ({keep}) must lie in (0, 1)")
    if lowest.size == 0 or not np.isfinite(lowest).all():
        raise ValueError("lowest must hold at least one finite value, one for each warm-up")
    return float(np.percentile(lowest, 100 * (1 - keep)))


def _check(logprobs: np.ndarray) -> None:
    if logprobs.size == 0:
        raise ValueError("there is no token; give at least one row and one column")
    bad = np.argwhere(~(np.isfinite(logprobs) & (logprobs <= 1e-6)))
    if bad.size:
        where = tuple(bad[0].tolist())
        raise ValueError(
            f"logprobs{list(where)} is {logprobs[where]}; they must be finite and at most 0"
        )
