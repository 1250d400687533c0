"""What the explorer shows: features over the snapshots of one run, as arrays.

Shape letters: F features, S snapshots, K contexts a feature, T tokens a context, N neighbours.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Integer

from meristem_core.report import Block

KINDS = ("initial", "emergent", "transient", "dead")


@dataclass(frozen=True, slots=True, kw_only=True)
class Contexts:
    """The strongest contexts of every feature, the strongest first.

    Parameters
    ----------
    tokens
        Ids below ``len(vocabulary)``; -1 fills what a shorter context, or a feature with fewer
        contexts, leaves empty.
    activation
        Pre-activation of the feature at each token; at least 0, and 0 where the token is -1.
    vocabulary
        The bytes of each token; bytes of several tokens may make one character.
    """

    tokens: Integer[np.ndarray, "F K T"]
    activation: Float[np.ndarray, "F K T"]
    vocabulary: Sequence[bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One more number per feature in the table, such as an attribution; NaN shows as a dash."""

    name: str
    values: Float[np.ndarray, " F"]
    note: str = ""  # what it is, in a sentence


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """The features, one row each.

    Parameters
    ----------
    norms
        Decoder norms in normalised space, at least 0.
    threshold
        Where gates open: at a snapshot the feature is open if pre-activation times norm exceeds it.
    kind
        Index into `KINDS`.
    emergence, peak
        Snapshots, counted from 0; -1 for a dead feature.
    lifetime
        Share of the snapshots from emergence on at which the feature is present.
    frequency
        Share of tokens at which it fires.
    dimensionality
        At the snapshot of its largest norm, 0 to 1.
    cosines
        Of its decoder rows between all pairs of snapshots.
    neighbours, similarity
        The features most like it, most like first, and their cosines.
    columns
        Further numbers.
    """

    norms: Float[np.ndarray, "F S"]
    threshold: Float[np.ndarray, "F S"]
    kind: Int[np.ndarray, " F"]
    emergence: Int[np.ndarray, " F"]
    peak: Int[np.ndarray, " F"]
    lifetime: Float[np.ndarray, " F"]
    frequency: Float[np.ndarray, " F"]
    dimensionality: Float[np.ndarray, " F"]
    cosines: Float[np.ndarray, "F S S"]
    neighbours: Int[np.ndarray, "F N"]
    similarity: Float[np.ndarray, "F N"]
    contexts: Contexts
    columns: Sequence[Column] = ()

    def turn(self) -> Float[np.ndarray, " F"]:
        """Return the angle from emergence to the last snapshot, degrees; NaN for a dead feature."""
        F = len(self.kind)
        cosine = self.cosines[np.arange(F), np.maximum(self.emergence, 0), -1]
        degrees = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
        return np.where(self.emergence < 0, np.nan, degrees)


@dataclass(frozen=True, slots=True, kw_only=True)
class Explorer:
    """A whole page.

    Parameters
    ----------
    title, subtitle
        Plain text.
    steps
        Training steps of the snapshots, increasing.
    features
        The features.
    rotation
        Mean cosine over features between all pairs of snapshots.
    turning
        Step at which the directions turn most, and its 95 % interval; None if there is none.
    overview, tasks, about
        Further blocks of the three views; a view without any is left out.

    Raises
    ------
    ValueError
        If sizes disagree, a number is out of range, or there is no feature.
    """

    title: str
    subtitle: str
    steps: Sequence[int]
    features: Features
    rotation: Float[np.ndarray, "S S"]
    turning: tuple[int, int, int] | None = None
    overview: Sequence[Block] = ()
    tasks: Sequence[Block] = ()
    about: Sequence[Block] = ()

    def __post_init__(self) -> None:
        """Refuse what would draw a page that is wrong."""
        features, S = self.features, len(self.steps)
        F = len(features.kind)
        if F == 0:
            raise ValueError("there is no feature; train a crosscoder with at least one")
        if any(a >= b for a, b in zip(self.steps, self.steps[1:], strict=False)):
            raise ValueError(f"steps {tuple(self.steps)} must increase; sort the snapshots")
        wanted = {
            "norms": (F, S), "threshold": (F, S), "emergence": (F,), "peak": (F,), "lifetime": (F,),
            "frequency": (F,), "dimensionality": (F,), "cosines": (F, S, S),
        }  # fmt: skip
        for name, shape in wanted.items():
            _check(name, getattr(features, name), shape)
        _check("rotation", self.rotation, (S, S))
        for name in ("emergence", "peak"):
            _within(name, getattr(features, name), -1, S - 1)
        _within("kind", features.kind, 0, len(KINDS) - 1)
        _within("neighbours", features.neighbours, 0, F - 1)
        _check("similarity", features.similarity, features.neighbours.shape)
        _check_contexts(features.contexts, F)
        for column in features.columns:
            if column.values.shape != (F,):
                raise ValueError(
                    f"column {column.name} has the shape {column.values.shape}; give ({F},)"
                )


def _check(name: str, values: np.ndarray, shape: tuple[int, ...]) -> None:
    if values.shape != shape:
        raise ValueError(f"{name} has the shape {values.shape}; features and steps want {shape}")
    if not np.isfinite(values).all():
        place = tuple(int(each) for each in np.argwhere(~np.isfinite(values))[0])
        raise ValueError(f"{name}{list(place)} is {values[place]}; a page holds finite numbers")


def _within(name: str, values: np.ndarray, low: int, high: int) -> None:
    if values.size and not (low <= values.min() and values.max() <= high):
        raise ValueError(
            f"{name} holds {values.min()} to {values.max()}; it must lie within {low} and {high}"
        )


def _check_contexts(contexts: Contexts, F: int) -> None:
    K, T = contexts.tokens.shape[1:]
    _check("contexts.tokens", contexts.tokens, (F, K, T))
    _check("contexts.activation", contexts.activation, (F, K, T))
    _within("contexts.tokens", contexts.tokens, -1, len(contexts.vocabulary) - 1)
    if contexts.activation.size and contexts.activation.min() < 0:
        raise ValueError(
            f"contexts.activation holds {contexts.activation.min()}; a silent token has 0"
        )
