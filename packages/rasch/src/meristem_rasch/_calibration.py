"""The result of an estimation: item parameters, their covariance, and how it ended."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import ArrayLike

Model = Literal["rasch", "pcm", "rsm", "linear", "2pl", "3pl", "gpcm", "grm"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentGroup:
    """Estimated normal distribution of a group of persons; a standard error of 0 means fixed."""

    label: str
    mean: float
    sd: float
    mean_se: float
    sd_se: float


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
    guess_se: Float[np.ndarray, " I"] | None = None  # None where no asymptote is estimated
    latent_mean: float  # of the first group; NaN where the method assumes nothing about persons
    latent_sd: float
    loglik: float
    n_parameters: int
    n_iter: int
    latent: tuple[LatentGroup, ...] = ()
    latent_cov: Float[np.ndarray, "G H"] | None = None  # of the groups' means with the thresholds
    history: tuple[float, ...] = ()  # log-likelihood after each step, where the method keeps it
    extreme_persons: tuple[str, ...]  # persons who carry no conditional information
    status: str

    @classmethod
    def from_parameters(
        cls,
        model: Model,
        thresholds: Sequence[ArrayLike] | Float[np.ndarray, "I m"],
        *,
        slope: ArrayLike | None = None,
        guess: ArrayLike | None = None,
        items: Sequence[str] | None = None,
        latent: tuple[float, float] = (0.0, 1.0),
    ) -> "Calibration":
        """Return items of known parameters, with errors 0, to score, simulate or anchor with.

        Parameters
        ----------
        thresholds
            For each item its thresholds in logits (one for a dichotomous item).
        slope, guess
            One number an item; default 1 and 0.
        latent
            Mean and sd of the persons.

        Raises
        ------
        ValueError
            If lengths differ, a number is not finite, a lower asymptote is outside [0, 1), or
            thresholds of a graded item are out of order: a category would have a negative chance.
        """
        rows = [np.atleast_1d(np.asarray(row, dtype=float)) for row in thresholds]
        tau, count = np.concatenate(rows), len(rows)
        a = np.ones(count) if slope is None else np.asarray(slope, dtype=float)
        g = np.zeros(count) if guess is None else np.asarray(guess, dtype=float)
        names = tuple(items or (f"I{k + 1}" for k in range(count)))
        if not a.shape == g.shape == (count,) or len(names) != count:
            raise ValueError(f"{count} items; give one slope, lower asymptote and label each")
        if not np.isfinite(np.concatenate([tau, a, g])).all() or (g < 0).any() or (g >= 1).any():
            raise ValueError("parameters must be finite and lower asymptotes in [0, 1)")
        for name, row, slope_i in zip(names, rows, a, strict=True):
            if model == "grm" and (slope_i * np.diff(row) <= 0).any():
                raise ValueError(
                    f"item {name}: thresholds {row.tolist()} of a graded item must rise (fall "
                    "where the slope is negative); sort them, or use 'gpcm', which takes any order"
                )
        size = len(tau)
        return cls(
            model=model,
            method="known",
            items=names,
            max_score=np.array([len(row) for row in rows]),
            threshold=tau,
            vcov=np.zeros((size, size)),
            eta=tau,
            eta_vcov=np.zeros((size, size)),
            slope=a,
            slope_se=np.zeros(count),
            guess=g,
            latent_mean=float(latent[0]),
            latent_sd=float(latent[1]),
            loglik=0.0,
            n_parameters=0,
            n_iter=0,
            extreme_persons=(),
            status="known",
        )

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
    def disordered(self) -> tuple[str, ...]:
        """Items with a threshold below the one before: a category that is never the likeliest."""
        same = np.diff(self.item_of) == 0
        falls = np.diff(self.threshold) * np.sign(self.slope[self.item_of[1:]]) < 0
        return tuple(self.items[i] for i in np.unique(self.item_of[1:][same & falls]))

    @property
    def aic(self) -> float:
        """Akaike's criterion, -2 log L + 2 parameters."""
        return -2 * self.loglik + 2 * self.n_parameters

    def renormalise(self, reference: Sequence[str] | Literal["persons"]) -> "Calibration":
        """Return the calibration with the mean location of the `reference` items at 0.

        With "persons" the mean of the (one) estimated distribution of persons is 0 instead, as in
        mirt and TAM.

        Raises
        ------
        ValueError
            If an item is unknown, none is given, or slopes are free (their scale is that of the
            persons' distribution); by "persons" if no distribution is estimated, or several are.
        """
        if self.model in ("2pl", "3pl", "gpcm", "grm"):
            raise ValueError(f"a {self.model} calibration is scaled by its persons; use `link`")
        if reference == "persons":
            return self._from_persons()
        unknown = [label for label in reference if label not in self.items]
        if unknown or not len(reference):
            raise ValueError(f"unknown reference {unknown}; name one or more of {self.items}")
        chosen = [self.items.index(label) for label in reference]
        share = np.bincount(chosen, minlength=len(self.items)) / len(chosen)
        w: Float[np.ndarray, " H"] = np.repeat(share / self.max_score, self.max_score)
        shift = float(w @ self.threshold)
        latent, latent_cov = _shifted_latent(self, w, shift)
        return replace(
            self,
            threshold=self.threshold - shift,
            vcov=shifted_covariance(self.vcov, w),
            latent_mean=self.latent_mean - shift,
            latent=latent,
            latent_cov=latent_cov,
        )

    def _from_persons(self) -> "Calibration":
        if len(self.latent) != 1 or self.latent_cov is None:
            raise ValueError(
                f"{len(self.latent)} distributions of persons are estimated by {self.method}; "
                "'persons' needs one, as MML without groups has it"
            )
        (group,), row = self.latent, self.latent_cov[0]
        return replace(
            self,
            threshold=self.threshold - group.mean,
            vcov=self.vcov - row - row[:, None] + group.mean_se**2,
            latent_mean=0.0,
            latent=(replace(group, mean=0.0, mean_se=0.0),),
            latent_cov=np.zeros_like(self.latent_cov),
        )

    def to_frame(self) -> dict[str, Any]:
        """Return columns by name, one row a threshold: `pandas.DataFrame(x.to_frame())`."""
        item = self.item_of
        return {
            "item": tuple(self.items[i] for i in item),
            "step": self.step_of,
            "threshold": self.threshold,
            "threshold_se": self.threshold_se,
            "difficulty": self.difficulty[item],
            "difficulty_se": self.difficulty_se[item],
            "slope": self.slope[item],
            "guess": self.guess[item],
        }

    def to_dict(self) -> dict[str, Any]:
        """Return the calibration as JSON takes it; a number that is not finite is its name.

        `from_dict` gives back the same to the bit.
        """
        every = {field.name: getattr(self, field.name) for field in fields(self)}
        every["latent"] = [asdict(group) for group in self.latent]
        return {name: plain(value) for name, value in every.items() if value is not None}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> "Calibration":
        """Return the calibration that `to_dict` wrote.

        Raises
        ------
        ValueError
            If a field is missing or unknown.
        """
        names = {field.name for field in fields(cls)}
        optional = {"guess_se", "latent_cov"}
        wrong = (names - optional - stored.keys()) | (stored.keys() - names)
        if wrong:
            raise ValueError(f"{sorted(wrong)}: missing or unknown; give what to_dict returned")
        return cls(**{name: _restored(name, value) for name, value in stored.items()})

    def summary(self) -> str:
        """Return a table of the item locations with standard errors, as text."""
        head = (
            f"{self.model} by {self.method}: {len(self.items)} items, log-likelihood "
            f"{self.loglik:.4f}, {self.n_parameters} parameters, {self.status}"
        )
        rows = zip(self.items, self.difficulty, self.difficulty_se, strict=True)
        lines = [head, *(f"{name:>16} {b:9.4f} {se:8.4f}" for name, b, se in rows)]
        if self.disordered:
            lines.append(f"thresholds out of order: {', '.join(self.disordered)}")
        return "\n".join(lines)


def plain(value: Any) -> Any:
    """Return a value as JSON takes it; a number that is not finite is its name."""
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, Mapping):
        return {name: plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    return repr(value) if isinstance(value, float) and not np.isfinite(value) else value


def _restored(name: str, value: Any) -> Any:
    match name:
        case "items" | "extreme_persons":
            return tuple(value)
        case "history":
            return tuple(map(float, value))
        case "latent":
            numbers = ("mean", "sd", "mean_se", "sd_se")
            return tuple(
                LatentGroup(label=group["label"], **{name: float(group[name]) for name in numbers})
                for group in value
            )
        case "max_score":
            return np.array(value, dtype=np.int64)
        case "latent_mean" | "latent_sd" | "loglik":
            return float(value)
        case _:
            return np.array(value, dtype=float) if isinstance(value, list) else value


def shifted_covariance(
    vcov: Float[np.ndarray, "H H"], w: Float[np.ndarray, " H"]
) -> Float[np.ndarray, "H H"]:
    """Return P V P', P = identity - 1 w': the covariance after fixing w'tau = 0 (w'1 = 1)."""
    left = vcov - (w @ vcov)[None, :]
    return left - (left @ w)[:, None]


def _shifted_latent(
    cal: Calibration, w: Float[np.ndarray, " H"], shift: float
) -> tuple[tuple[LatentGroup, ...], Float[np.ndarray, "G H"] | None]:
    """Return groups and covariances of their means with thresholds after fixing w'tau = 0."""
    if cal.latent_cov is None:
        return cal.latent, None
    row = w @ cal.vcov
    variance = np.array([group.mean_se**2 for group in cal.latent])
    variance = variance - 2 * cal.latent_cov @ w + float(row @ w)
    se = np.sqrt(variance.clip(min=0)).tolist()
    latent = tuple(
        replace(group, mean=group.mean - shift, mean_se=s)
        for group, s in zip(cal.latent, se, strict=True)
    )
    moved = cal.latent_cov - row
    return latent, moved - (moved @ w)[:, None]
