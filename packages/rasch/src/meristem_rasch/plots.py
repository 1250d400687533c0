"""Pictures of measurement, with the extra `plot`: each function draws on an Axes and returns it."""

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes

from meristem_rasch._alignment import Alignment
from meristem_rasch._calibration import Calibration
from meristem_rasch._curves import curves
from meristem_rasch._dif import DifTable
from meristem_rasch._errors import DataError
from meristem_rasch._facet_results import FacetCalibration
from meristem_rasch._fit import FitTable
from meristem_rasch._persons import PersonScores

LOW, HIGH = 0.7, 1.3  # mean squares outside are worth a look
SHOWN = 60  # labels that can be read beside one another
CLASSES = {"A": "C7", "B": "C1", "C": "C3", "-": "0.8"}
Z = 1.96


def wright_map(ax: Axes, cal: Calibration, persons: PersonScores) -> Axes:
    """Draw persons, to the left, and thresholds, to the right, on one scale of logits."""
    theta = persons.theta[np.isfinite(persons.theta)]
    if not theta.size:
        raise DataError("no person has a finite measure; there is nothing to draw")
    counts, edges = np.histogram(theta, bins=min(40, max(8, int(np.sqrt(theta.size)))))
    ax.barh(edges[:-1], -counts, height=np.diff(edges), align="edge", color="C0", label="persons")
    width = float(counts.max())
    column = width * (0.1 + 0.9 * (cal.item_of + 0.5) / len(cal.items))
    ax.scatter(column, cal.threshold, s=14, color="C1", label="thresholds", zorder=3)
    if len(cal.items) <= SHOWN:
        at = width * (0.1 + 0.9 * (np.arange(len(cal.items)) + 0.5) / len(cal.items))
        ax.set_xticks(at, cal.items, rotation=90, fontsize="small")
    else:
        ax.set_xticks([])
    ax.axvline(0, color="0.5", linewidth=0.8)
    ax.set_ylabel("logits")
    ax.legend(loc="upper left")
    return ax


def item_curves(ax: Axes, cal: Calibration, item: str) -> Axes:
    """Draw the probability of each score of an item over ability."""
    if item not in cal.items:
        raise DataError(f"{item!r} is no item; there are {cal.items[:6]}")
    i = cal.items.index(item)
    tau = cal.threshold[cal.item_of == i]
    theta: Float[np.ndarray, " n"] = np.linspace(tau.min() - 4, tau.max() + 4, 241)
    p = curves(cal, theta)[0][:, i]
    for score in range(int(cal.max_score[i]) + 1):
        ax.plot(theta, p[:, score], label=f"{score}")
    ax.set(xlabel="ability, logits", ylabel="probability", title=item, ylim=(0, 1))
    ax.legend(title="score")
    return ax


def fit_map(ax: Axes, cal: Calibration, fit: FitTable) -> Axes:
    """Draw infit (filled) and outfit (open) of the items over difficulty; 1 is expected."""
    if fit.labels != cal.items:
        raise DataError("the fit is of other items than the calibration; give item_fit of it")
    ax.axhspan(LOW, HIGH, color="0.93", zorder=0)
    ax.axhline(1, color="0.5", linewidth=0.8)
    ax.scatter(cal.difficulty, fit.infit, s=18, color="C0", label="infit")
    ax.scatter(cal.difficulty, fit.outfit, s=18, facecolors="none", edgecolors="C1", label="outfit")
    for i, label in enumerate(cal.items):
        if not LOW <= fit.outfit[i] <= HIGH:
            ax.annotate(label, (cal.difficulty[i], fit.outfit[i]), fontsize="small")
    ax.set(xlabel="difficulty, logits", ylabel="mean square")
    ax.legend()
    return ax


def alignment_plot(ax: Axes, alignment: Alignment) -> Axes:
    """Draw R2 of each rung of the ladder, with its interval over items."""
    rungs = alignment.rungs
    r2 = np.array([rung.r2 for rung in rungs])
    low, high = np.array([rung.low for rung in rungs]), np.array([rung.high for rung in rungs])
    y = np.arange(len(rungs))[::-1]
    ax.hlines(y, low, high, color="C0")
    ax.plot(r2, y, "o", color="C0")
    ax.axvline(0, color="0.5", linewidth=0.8)
    ax.set_yticks(y, [rung.name for rung in rungs])
    ax.set_xlabel("R2 over all cells, 95 % interval over items")
    return ax


def facet_ruler(ax: Axes, cal: FacetCalibration) -> Axes:
    """Draw the levels of every facet on one scale of logits, a column for each facet."""
    for column, (name, facet) in enumerate(cal.facets.items()):
        ax.scatter(np.full(len(facet.measure), column), facet.measure, s=12, color=f"C{column}")
        if name != cal.person and len(facet.labels) <= SHOWN:
            for label, value in zip(facet.labels, facet.measure, strict=True):
                ax.annotate(f" {label}", (column, float(value)), va="center", fontsize="small")
    ax.set_xticks(range(len(cal.facets)), list(cal.facets))
    ax.set_xlim(-0.5, len(cal.facets))
    ax.set_ylabel("logits; persons upwards able, others upwards hard")
    return ax


def dif_plot(ax: Axes, dif: DifTable) -> Axes:
    """Draw each item's effect with its 95 % interval, coloured by class A, B or C."""
    known = np.flatnonzero(np.isfinite(dif.effect))
    order = known[np.argsort(dif.effect[known])]
    for y, i in enumerate(order):
        colour = CLASSES[dif.classes[i]]
        half = Z * float(dif.se[i])
        ax.hlines(y, float(dif.effect[i]) - half, float(dif.effect[i]) + half, color=colour)
        ax.plot(float(dif.effect[i]), y, "o", color=colour)
    ax.axvline(0, color="0.5", linewidth=0.8)
    if len(order) <= SHOWN:
        ax.set_yticks(range(len(order)), [dif.items[i] for i in order], fontsize="small")
    ax.set_xlabel(f"logits harder for {dif.focal} than for {dif.reference}")
    return ax
