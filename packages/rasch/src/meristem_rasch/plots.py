"""Plots of results; they need the extra `plot` (matplotlib).

Each takes a matplotlib `Axes`, or makes one, draws, and returns it; none shows or saves, or sets a
style.
"""

from importlib import import_module
from typing import Any, Literal, TypeAlias

import numpy as np
from jaxtyping import Float

from meristem_rasch._alignment import Alignment
from meristem_rasch._calibration import Calibration
from meristem_rasch._curves import curves
from meristem_rasch._dif import DifTable
from meristem_rasch._errors import DataError
from meristem_rasch._facet_results import FacetCalibration
from meristem_rasch._fit import FitTable
from meristem_rasch._multiple import holm
from meristem_rasch._persons import PersonScores

__all__ = ["alignment_plot", "dif_plot", "facet_ruler", "fit_map", "item_curves", "wright_map"]

Axes: TypeAlias = Any  # matplotlib.axes.Axes, which a plain install lacks
NAMED = 40  # labels that can be read beside each other
BINS = 30
MARKS = {"A": "o", "B": "s", "C": "D", "-": "x"}  # by class of bias


def wright_map(cal: Calibration, scores: PersonScores, *, ax: Axes = None) -> Axes:
    """Draw persons (left, a histogram) and thresholds (right) on one scale in logits.

    Infinite measures have no place on it: the axis says how many there are.
    """
    ax = _axes(ax)
    theta = scores.theta[np.isfinite(scores.theta)]
    ends = np.concatenate([theta, cal.threshold])
    edges = np.linspace(ends.min() - 0.2, ends.max() + 0.2, BINS + 1)
    count = np.histogram(theta, edges)[0]
    height = float(edges[1] - edges[0])
    largest = max(int(count.max(initial=0)), 1)
    ax.barh(edges[:-1], -count / largest, height=height, align="edge", color="0.7")
    rank = _rank_in_bin(np.searchsorted(edges, cal.threshold))
    x = 0.08 + 0.92 * rank / max(int(rank.max()), 5)
    steps = len(cal.items) < len(cal.threshold)
    labels = [
        f"{cal.items[i]}.{h}" if steps else cal.items[i]
        for i, h in zip(cal.item_of, cal.step_of, strict=True)
    ]
    if len(labels) <= NAMED:
        for place, b, label in zip(x, cal.threshold, labels, strict=True):
            ax.text(place, b, label, va="center", fontsize="small")
        ax.set_xlim(-1.05, 1.3)
    else:
        ax.plot(x, cal.threshold, "k.", markersize=3)
    ax.axvline(0, color="black", linewidth=0.8)
    ax.set_xticks([])
    lost = len(scores.theta) - len(theta)
    ax.set_xlabel(f"persons{f' ({lost} without a finite measure)' if lost else ''} | thresholds")
    ax.set_ylabel("logits")
    return ax


def item_curves(cal: Calibration, item: str, *, ax: Axes = None) -> Axes:
    """Draw the probability of each category of an item against ability.

    Raises
    ------
    DataError
        If the calibration has no such item.
    """
    if item not in cal.items:
        raise DataError(f"{item!r} is not an item; the items are {cal.items}")
    ax, at = _axes(ax), cal.items.index(item)
    tau = cal.threshold[cal.item_of == at]
    reach = 4 / max(abs(float(cal.slope[at])), 0.1)
    theta = np.linspace(tau.min() - reach, tau.max() + reach, 200)
    chances = curves(cal, theta)[0][:, at, : len(tau) + 1]
    styles = ("-", "--", "-.", ":")
    for h in range(chances.shape[1]):
        ax.plot(theta, chances[:, h], styles[h % 4], label=f"score {h}")
    ax.set_ylim(0, 1)
    ax.set_xlabel("ability, logits")
    ax.set_ylabel(f"probability, {item}")
    ax.legend()
    return ax


def fit_map(
    table: FitTable,
    measure: Float[np.ndarray, " n"],
    *,
    kind: Literal["infit", "outfit"] = "outfit",
    ax: Axes = None,
) -> Axes:
    """Draw mean squares against measures; those beyond chance (Holm, 5 %) are named.

    Parameters
    ----------
    measure
        Difficulty of the items, or ability of the persons, of the table.

    Raises
    ------
    DataError
        If there is not one measure a row.
    """
    if len(measure) != len(table.labels):
        raise DataError(f"{len(measure)} measures for {len(table.labels)} rows; give one each")
    ax = _axes(ax)
    infit = kind == "infit"
    square, p = (table.infit, table.infit_p) if infit else (table.outfit, table.outfit_p)
    far = holm(p) < 0.05
    ax.plot(measure[~far], square[~far], "o", color="0.6", markersize=4)
    ax.plot(measure[far], square[far], "kD", markersize=5)
    for at in np.flatnonzero(far)[np.argsort(-np.abs(np.log(square[far])))][:NAMED]:
        offset = {"xytext": (4, 3), "textcoords": "offset points", "fontsize": "small"}
        ax.annotate(table.labels[at], (measure[at], square[at]), **offset)
    ax.axhline(1, color="black", linewidth=0.8)
    ax.set_yscale("log")
    ax.yaxis.set_major_formatter("{x:g}")
    ax.yaxis.set_minor_formatter("{x:g}")
    ax.set_xlabel("measure, logits")
    ax.set_ylabel(f"{kind} mean square (1 = as the model expects)")
    return ax


def alignment_plot(alignment: Alignment, *, ax: Axes = None) -> Axes:
    """Draw the ladder: R^2 of each rung with its 95 % interval, and R^2 on items left out."""
    ax = _axes(ax)
    rungs = alignment.rungs[::-1]
    y, r2 = np.arange(len(rungs)), np.array([rung.r2 for rung in rungs])
    low = r2 - np.array([rung.low for rung in rungs])
    high = np.array([rung.high for rung in rungs]) - r2
    error = np.maximum([low, high], 0)  # a percentile interval may end beside its estimate
    ax.errorbar(r2, y, xerr=error, fmt="ko", capsize=3, label="R², 95 % over items")
    held = [(rung.r2_held_out, k) for k, rung in enumerate(rungs) if rung.r2_held_out is not None]
    if held:
        ax.plot(*zip(*held, strict=True), "x", color="0.4", markersize=8, label="items left out")
    ax.axvline(0, color="black", linewidth=0.8)
    ax.set_yticks(y, [rung.name for rung in rungs])
    ax.set_xlabel("share of the scores' variance explained, R²")
    ax.legend()
    return ax


def facet_ruler(cal: FacetCalibration, *, ax: Axes = None) -> Axes:
    """Draw all facets beside each other on one ruler in logits.

    Persons rise with ability, levels of all other facets with difficulty or severity; a facet of
    more than 40 levels is drawn as points.
    """
    ax = _axes(ax)
    for place, table in enumerate(cal.facets.values()):
        if len(table.labels) > NAMED:
            spread = 0.3 * np.cos(np.arange(len(table.labels)) * 2.4)  # no two side by side
            ax.plot(place + spread, table.measure, "k.", markersize=3)
            continue
        for label, measure in zip(table.labels, table.measure, strict=True):
            ax.text(place, measure, label, ha="center", va="center", fontsize="small")
    every = np.concatenate([table.measure for table in cal.facets.values()])
    every = every[np.isfinite(every)]
    ax.set_ylim(every.min() - 0.3, every.max() + 0.3)
    ax.set_xlim(-0.6, len(cal.facets) - 0.4)
    ax.set_xticks(range(len(cal.facets)), list(cal.facets))
    ax.set_ylabel("logits")
    return ax


def dif_plot(table: DifTable, *, ax: Axes = None) -> Axes:
    """Draw each item's effect with its 95 % interval; the mark tells the class (A, B, C).

    An item that could not be tested is left out and named below.
    """
    ax = _axes(ax)
    tested = np.isfinite(table.effect)
    y = np.arange(int(tested.sum()))[::-1]
    effect, se = table.effect[tested], table.se[tested]
    classes = np.array(table.classes)[tested]
    ax.hlines(y, effect - 1.96 * se, effect + 1.96 * se, color="0.6")
    for kind in np.unique(classes):
        chosen = classes == kind
        ax.plot(effect[chosen], y[chosen], "k" + MARKS[kind], label=f"class {kind}", linestyle="")
    ax.axvline(0, color="black", linewidth=0.8)
    ax.set_yticks(y, [name for name, ok in zip(table.items, tested, strict=True) if ok])
    lost = [name for name, ok in zip(table.items, tested, strict=True) if not ok]
    note = f"\nnot tested: {', '.join(lost)}" if lost else ""
    ax.set_xlabel(f"harder for {table.focal} than for {table.reference}, logits{note}")
    ax.legend()
    return ax


def _axes(given: Axes) -> Axes:
    if given is not None:
        return given
    try:
        pyplot: Any = import_module("matplotlib.pyplot")
    except ImportError:
        raise ImportError("plots need matplotlib: pip install 'meristem-rasch[plot]'") from None
    return pyplot.subplots()[1]


def _rank_in_bin(place: np.ndarray) -> np.ndarray:
    """Return how many before have the same place."""
    order = np.argsort(place, kind="stable")
    first = np.searchsorted(place[order], place[order])
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order)) - first
    return rank
