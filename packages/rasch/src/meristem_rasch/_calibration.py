"""The result of an estimation: item parameters, their covariance, and how it ended."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

Model = Literal["rasch", "pcm", "rsm", "linear", "2pl", "3pl", "gpcm", "grm"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Calibration:
    """Item parameters in logits; a positive threshold is difficult.

    `threshold[k]` is tau_ih with i = `item_of[k]` and h = `step_of[k]` (from 1). Standard errors
    are those of the normalisation that the thresholds are in.
    """

    model: Model
    method: str
    items: tuple[str, ...]
    max_score: Int[np.ndarray, " I"]
    threshold: Float[np.ndarray, " H"]
    vcov: Float[np.ndarray, "H H"]
    eta: Float[np.ndarray, " P"]  # basic parameters of the design, before normalisation
    eta_vcov: Float[np.ndarray, "P P"]
    slope: Float[np.ndarray, " I"]
    slope_se: Float[np.ndarray, " I"]
    guess: Float[np.ndarray, " I"]
    latent_mean: float  # NaN where the method makes no assumption about persons
    latent_sd: float
    loglik: float
    n_parameters: int
    n_iter: int
    extreme_persons: tuple[str, ...]  # persons who carry no conditional information
    status: str

    @property
    def item_of(self) -> Int[np.ndarray, " H"]:
        """Item number of each threshold."""
        return np.repeat(np.arange(len(self.items)), self.max_score)

    @property
    def step_of(self) -> Int[np.ndarray, " H"]:
        """Step number, from 1, of each threshold within its item."""
        first = np.repeat(np.cumsum(self.max_score) - self.max_score, self.max_score)
        return np.arange(len(first)) - first + 1

    @property
    def threshold_se(self) -> Float[np.ndarray, " H"]:
        """Standard errors of the thresholds."""
        return np.sqrt(np.diag(self.vcov).clip(min=0))  # a reference item has variance +-1e-17

    @property
    def difficulty(self) -> Float[np.ndarray, " I"]:
        """Location of each item, the mean of its thresholds."""
        first = np.cumsum(self.max_score) - self.max_score
        return np.add.reduceat(self.threshold, first) / self.max_score

    @property
    def difficulty_se(self) -> Float[np.ndarray, " I"]:
        """Standard errors of the locations."""
        first = np.cumsum(self.max_score) - self.max_score
        rows = np.add.reduceat(self.vcov, first, axis=0)
        sums = np.add.reduceat(rows, first, axis=1)
        return np.sqrt(np.diag(sums).clip(min=0)) / self.max_score

    @property
    def aic(self) -> float:
        """Akaike's criterion, -2 log L + 2 parameters."""
        return -2 * self.loglik + 2 * self.n_parameters

    def renormalise(self, reference: Sequence[str]) -> "Calibration":
        """Return the calibration with the mean location of the `reference` items at 0.

        Raises
        ------
        ValueError
            If an item is unknown, none is given, or slopes are free (their scale is that of the
            persons' distribution).
        """
        if self.model in ("2pl", "3pl", "gpcm", "grm"):
            raise ValueError(f"a {self.model} calibration is scaled by its persons; use `link`")
        unknown = [label for label in reference if label not in self.items]
        if unknown or not len(reference):
            raise ValueError(f"unknown reference {unknown}; name one or more of {self.items}")
        chosen = [self.items.index(label) for label in reference]
        share = np.bincount(chosen, minlength=len(self.items)) / len(chosen)
        w: Float[np.ndarray, " H"] = np.repeat(share / self.max_score, self.max_score)
        shift = float(w @ self.threshold)
        return replace(
            self,
            threshold=self.threshold - shift,
            vcov=shifted_covariance(self.vcov, w),
            latent_mean=self.latent_mean - shift,
        )

    def summary(self) -> str:
        """Return a table of the item locations with standard errors, as text."""
        head = (
            f"{self.model} by {self.method}: {len(self.items)} items, log-likelihood "
            f"{self.loglik:.4f}, {self.n_parameters} parameters, {self.status}"
        )
        rows = zip(self.items, self.difficulty, self.difficulty_se, strict=True)
        return "\n".join([head, *(f"{name:>16} {b:9.4f} {se:8.4f}" for name, b, se in rows)])


def shifted_covariance(
    vcov: Float[np.ndarray, "H H"], w: Float[np.ndarray, " H"]
) -> Float[np.ndarray, "H H"]:
    """Return P V P', P = identity - 1 w': the covariance after fixing w'tau = 0 (w'1 = 1)."""
    left = vcov - (w @ vcov)[None, :]
    return left - (left @ w)[:, None]
