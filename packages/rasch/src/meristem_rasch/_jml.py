"""Joint maximum likelihood: persons and items estimated together, without a distribution.

- persons with the same items and raw score share an ability, so that complete data need one ability
  a raw score; the engine is that of `Facets`, with persons and items as its two facets
- "epsilon" adjusts every indicator so that no estimate is infinite and most of the bias is gone
  (Bertoli-Barsotti et al. 2014); "wright" is plain JML with thresholds times (L - 1) / L, L the
  mean number of answers (Wright & Douglas 1977); "jackknife" is twice plain JML minus its estimate
  from halves of everybody's answers, which have twice the bias (Dhaene & Jochmans 2015); "none" is
  plain JML, biased outwards by about L / (L - 1)
- standard errors hold the abilities at their estimates
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.linalg import block_diag

from meristem_rasch._calibration import Calibration
from meristem_rasch._cml import check_model
from meristem_rasch._connected import check_connected
from meristem_rasch._design import rating_scale
from meristem_rasch._errors import DataError, ExistenceError, IdentificationError, Status, conclude
from meristem_rasch._existence import check_existence
from meristem_rasch._newton_cg import Design, maximise, moments, steps_of
from meristem_rasch._patterns import distinct_rows, extreme_persons, patterns
from meristem_rasch._responses import Responses


@dataclass(frozen=True, slots=True, kw_only=True)
class JML:
    """Joint maximum likelihood with a correction of its bias.

    Parameters
    ----------
    model
        "rasch", "pcm" or "rsm".
    correction
        "epsilon", "wright", "jackknife" or "none"; the last three leave persons with extreme scores
        out.
    anchors
        Held difficulties of a "rasch" model: item -> logits. The scale is theirs; else items
        average 0.
    """

    model: Literal["rasch", "pcm", "rsm"] = "rasch"
    correction: Literal["epsilon", "wright", "jackknife", "none"] = "epsilon"
    epsilon: float | int = 0.3
    anchors: Mapping[str, float] = field(default_factory=dict[str, float])
    tol: float = 1e-8
    max_steps: int = 100

    def fit(self, data: Responses, *, strict: bool = True) -> Calibration:
        """Return the calibration of `data`; `loglik` is that of the (adjusted) joint likelihood.

        Parameters
        ----------
        strict
            Whether a search that ends before `tol` raises; else its last state is returned, of
            status "max_steps".

        Raises
        ------
        DataError
            If scores or anchors do not fit the model.
        ExistenceError
            If an estimate is infinite, in a half of the answers too; names the items.
        ConvergenceError
            If `max_steps` steps do not reach `tol`.
        """
        check_model(self.model, data)
        held = self._held(data)
        if self.correction == "jackknife":
            corrected = _jackknifed(replace(self, correction="none"), data)
            return conclude(
                lambda status: replace(corrected, status=status),
                converged=corrected.status == "converged",
                strict=strict,
                tol=self.tol,
                max_steps=self.max_steps,
            )
        steps = rating_scale(data.max_score) if self.model == "rsm" else None
        check_existence(data, patterns(data))
        design, answers = self._design(data)
        names = tuple(f"person {k + 1}" for k in range(design.sizes[0])) + data.items
        check_connected(design, names)
        width = int(design.top.max())
        x = np.zeros(design.n_levels + len(design.top) * width)
        at = design.sizes[0] + np.flatnonzero(held)
        design.free[at], x[at] = False, [self.anchors[data.items[i]] for i in np.flatnonzero(held)]
        found = maximise(design, x, tol=self.tol, max_steps=self.max_steps)

        def result(status: Status) -> Calibration:
            scale = (answers - 1) / answers if self.correction == "wright" else 1.0
            location = found.x[design.sizes[0] : design.n_levels]
            kappa = np.broadcast_to(steps_of(design, found.x), (len(location), width))
            inside = np.arange(1, width + 1) <= data.max_score[:, None]
            tau = scale * (location[:, None] + kappa)[inside]
            vcov = scale**2 * _covariance(design, found.x, data, steps)
            if held.any():
                vcov = vcov * ~held * ~held[:, None]  # one threshold an item
            parameters = len(tau) if steps is None else steps.shape[1]
            out = Calibration(
                model=self.model,
                method="JML",
                items=data.items,
                max_score=data.max_score,
                threshold=tau,
                vcov=vcov,
                eta=tau,
                eta_vcov=vcov,
                slope=np.ones(len(data.items)),
                slope_se=np.zeros(len(data.items)),
                guess=np.zeros(len(data.items)),
                latent_mean=np.nan,
                latent_sd=np.nan,
                loglik=found.moments.loglik,
                n_parameters=parameters - max(int(held.sum()), 1),
                n_iter=len(found.history),
                history=found.history,
                extreme_persons=extreme_persons(data),
                status=status,
            )
            return out if held.any() else out.renormalise(data.items)

        return conclude(
            result,
            converged=found.converged,
            strict=strict,
            tol=self.tol,
            max_steps=self.max_steps,
        )

    def _held(self, data: Responses) -> Bool[np.ndarray, " I"]:
        unknown = [label for label in self.anchors if label not in data.items]
        if unknown:
            raise DataError(f"anchors {unknown} are no items; there are {data.items[:6]}")
        corrected = self.correction in ("wright", "jackknife")  # these move anchored items too
        if self.anchors and (self.model != "rasch" or corrected):
            raise DataError(
                f"anchors with model {self.model!r} and correction {self.correction!r}: they take "
                "'rasch' with 'epsilon' or 'none'; Facets anchors locations of graded items"
            )
        if not np.isfinite(list(self.anchors.values())).all():
            raise DataError(f"anchors {dict(self.anchors)} must be finite")
        return np.isin(data.items, list(self.anchors))

    def _design(self, data: Responses) -> tuple[Design, float]:
        """Return one row for each kind of person, item and score that occurs."""
        raw, possible = data.raw, data.possible
        keep = (data.weight > 0) & (possible > 0)
        if self.correction != "epsilon":
            keep &= (raw > 0) & (raw < possible)
        rows = np.flatnonzero(keep)
        scores, weight = data.scores[rows], data.weight[rows]
        keys = np.hstack([np.packbits(scores >= 0, axis=1), raw[rows, None].view(np.uint8)])
        first, kind = distinct_rows(keys)
        who, item, score, n = _counted(scores, kind, weight, len(first))
        e = np.zeros(len(who))
        if self.correction == "epsilon":
            m = data.max_score
            possible_pairs = np.where(scores[first] >= 0, m * (m + 1) / 2, 0).sum(axis=1)
            e = (self.epsilon / np.maximum(possible_pairs, 2 * self.epsilon))[who]
        shared = self.model == "rsm"
        group = np.zeros(len(who), dtype=np.int64) if shared else item
        top = data.max_score[:1] if shared else data.max_score
        m = top[group]
        passed = np.column_stack(
            [
                np.bincount(
                    group, n * ((1 - (m + 1) * e) * (score >= k) + e * (m - k + 1)) * (k <= m)
                )
                for k in range(1, int(top.max()) + 1)
            ]
        )
        design = Design(
            levels=(who, item),
            sizes=(len(first), len(data.items)),
            signs=(1.0, -1.0),
            group=group,
            top=top,
            weight=n,
            target=(1 - (m + 1) * e) * score + e * m * (m + 1) / 2,
            passed=passed,
            free=np.ones(len(first) + len(data.items), dtype=bool),
        )
        return design, float(n.sum() / weight.sum())


def _jackknifed(plain: JML, data: Responses) -> Calibration:
    """Return twice the estimate minus that from halves of everybody's answers.

    Every person becomes four of half the weight: those with every second answer, and those with
    every second pair of answers, which links the halves.
    """
    whole = plain.fit(data, strict=False)
    place = np.cumsum(data.mask, axis=1) - 1
    halves = [place % 2 == 0, place % 2 == 1, place // 2 % 2 == 0, place // 2 % 2 == 1]
    split = Responses(
        scores=np.vstack([np.where(half, data.scores, -1) for half in halves]),
        persons=tuple(f"{name}, part {k}" for k in range(1, 5) for name in data.persons),
        items=data.items,
        max_score=data.max_score,
        weight=np.tile(data.weight / 2, 4),
    )
    try:
        half = plain.fit(split, strict=False)
    except (ExistenceError, IdentificationError) as error:
        raise type(error)(
            f"in halves of the answers, which 'jackknife' compares: {error}; or use 'epsilon'"
        ) from error
    tau = 2 * whole.threshold - half.threshold
    status = half.status if whole.status == "converged" else whole.status
    return replace(whole, threshold=tau, eta=tau, status=status)


def _counted(
    scores: Int[np.ndarray, "n I"],
    kind: Int[np.ndarray, " n"],
    weight: Float[np.ndarray, " n"],
    kinds: int,
) -> tuple[
    Int[np.ndarray, " c"], Int[np.ndarray, " c"], Int[np.ndarray, " c"], Float[np.ndarray, " c"]
]:
    """Return kind of person, item, score and weighted count of all answers that occur."""
    items, width = scores.shape[1], int(scores.max()) + 1
    row, item = np.nonzero(scores >= 0)
    cell = (kind[row] * items + item) * width + scores[row, item]
    if kinds * items * width <= 8 * len(cell):
        count = np.bincount(cell, weight[row], kinds * items * width)
        found = np.flatnonzero(count)
        n = count[found]
    else:
        found, where = np.unique(cell, return_inverse=True)
        n = np.bincount(where, weight[row])
    return found // width // items, found // width % items, found % width, n


def _covariance(
    design: Design, x: Float[np.ndarray, " P"], data: Responses, steps: np.ndarray | None
) -> Float[np.ndarray, "H H"]:
    """Return the inverse information of the thresholds, the abilities held."""
    if steps is None:
        blocks = moments(design, x).steps
        inverse = [
            np.linalg.inv(block[:m, :m]) for block, m in zip(blocks, data.max_score, strict=True)
        ]
        return np.asarray(block_diag(*inverse), dtype=float)
    by_item = Design(
        levels=design.levels,
        sizes=design.sizes,
        signs=design.signs,
        group=design.levels[1],
        top=data.max_score,
        weight=design.weight,
        target=design.target,
        passed=np.zeros((len(data.items), int(data.max_score.max()))),
        free=design.free,
    )
    kappa = np.tile(steps_of(design, x), (len(data.items), 1))
    blocks = moments(by_item, np.concatenate([x[: design.n_levels], kappa.ravel()])).steps
    information = steps.T @ np.asarray(block_diag(*blocks), dtype=float) @ steps
    return steps @ np.linalg.inv(information) @ steps.T
