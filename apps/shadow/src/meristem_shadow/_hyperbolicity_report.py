"""The page of `hyperbolicity`."""

from typing import TYPE_CHECKING

import numpy as np

from meristem_core.report import (
    Block,
    Check,
    Checks,
    LineChart,
    Page,
    Section,
    Series,
    Table,
    Text,
)
from meristem_shadow._drawing import boxes_in_plane
from meristem_shadow._finish import capital
from meristem_shadow._report import logs

if TYPE_CHECKING:
    from meristem_shadow._hyperbolicity import Cones, Finding

BANDS = 14  # of distance in the figure of rates


def sentence(found: "Finding") -> str:
    """Return the finding in one sentence."""
    if found.pointwise is not None:
        u, s = found.pointwise.unstable, found.pointwise.stable
        holds = "holds" if found.pointwise.ratio else "fails"
        return (
            f"rates of {found.system} tend to 1 like w^{max(u.beta, s.beta):.2f} at the boundary, "
            f"gamma is {min(u.gamma, s.gamma):.2f}, and alpha > beta / gamma {holds} "
            "(measured, not proved)"
        )
    if found.forms is not None:
        if found.forms.ok:
            return (
                f"{found.system} fulfils the six conditions of a degenerate saddle; cones are "
                f"invariant for 0 < max(|x|, |y|) <= {found.forms.radius:.3g}, proved"
            )
        failing = [name for name, form in found.forms.forms.items() if not form.definite]
        return f"{found.system} fails the conditions on {', '.join(failing)}"
    assert found.cones is not None
    return _cone_sentence(found.system, found.cones)


def _cone_sentence(system: str, cones: "Cones") -> str:
    total = len(cones.centres)
    if not cones.failing:
        return (
            f"the cones of {system} are invariant and expand by at least "
            f"{cones.expansion.min():.4g} on all {total:,} boxes, proved"
        )
    failing = f"{cones.failing:,} of {total:,} boxes"
    return f"the cone condition of {system} fails on {failing}; {_worst(cones)}"


def _worst(cones: "Cones") -> str:
    x, y = cones.worst
    low = float(cones.expansion.min())
    miss = 1 - low
    told = f"{miss:.3g} below 1" if miss > 0 else "above 1, but the cone is not carried inside"
    return f"worst around ({x:.4g}, {y:.4g}), where only {low:.4g} is proved: {told}"


def hyperbolicity_page(found: "Finding") -> Page:
    """Return the report."""
    sections = [Section(title="Verdict", blocks=_verdict(found))]
    if found.pointwise is not None:
        sections.append(Section(title="Rates towards the boundary", blocks=_rates(found)))
    if found.forms is not None:
        sections.append(Section(title="The six conditions", blocks=_forms(found)))
    if found.cones is not None:
        sections.append(Section(title="Cones, box by box", blocks=_boxes(found.cones)))
    rows: list[list[str]] = [
        ["system", found.system],
        *([f"parameter {key}", f"exactly {value}"] for key, value in found.params.items()),
        ["fixed point", ", ".join(f"{x!r}" for x in found.point)],
        ["its kind", found.point_kind],
        *([f"not tested: {part}", why] for part, why in found.missing.items()),
    ]
    table = Table(columns=["hypothesis", "value"], rows=rows)
    sections.append(Section(title="What it is about", blocks=[table]))
    return Page(
        title=f"Hyperbolicity: {found.system}", subtitle=capital(sentence(found)), sections=sections
    )


def _verdict(found: "Finding") -> list[Block]:
    checks: list[Check] = []
    if found.pointwise is not None:
        report = found.pointwise
        readings = (
            ("alpha > beta / gamma", report.ratio, "the reading that admits the papers' examples"),
            ("alpha > beta gamma", report.as_reported, "the reading as reported"),
            ("gamma > beta / alpha in each direction", report.separate, "as conditions U and S"),
        )
        checks += [
            Check(
                claim=claim,
                verdict="holds (measured)" if holds else "fails (measured)",
                holds=holds,
                detail=f"{note}; alpha is {found.alpha:.3g}.",
            )
            for claim, holds, note in readings
        ]
    if found.forms is not None:
        ok = found.forms.ok
        checks.append(
            Check(
                claim="The six forms are positive definite",
                verdict="proved" if ok else "refuted",
                holds=ok,
                detail="decided exactly, by Sturm chains.",
            )
        )
    if found.cones is not None:
        # at a degenerate point no box around it can expand: that refutes nothing
        neutral = found.forms is not None and found.forms.ok
        failing, total = found.cones.failing, len(found.cones.centres)
        why = "; boxes at a neutral point never expand" if neutral and failing else ""
        checks.append(
            Check(
                claim="Constant cones are invariant and expanding",
                verdict="proved on all boxes" if not failing
                else f"not proved on {failing:,} of {total:,}",
                holds=True if not failing else None if neutral else False,
                detail=f"{_worst(found.cones)}{why}." if failing
                else f"expansion at least {found.cones.expansion.min():.4g}.",
            )
        )  # fmt: skip
    return [Checks(checks)]


def _rates(found: "Finding") -> list[Block]:
    assert found.pointwise is not None
    assert found.cloud is not None
    w, *excess = found.cloud
    edges = np.geomspace(w.min(), w.max(), BANDS + 1)
    band = np.clip(np.searchsorted(edges, w, side="right") - 1, 0, BANDS - 1)
    series = []
    for name, values in zip(("expansion", "contraction backward"), excess, strict=True):
        some = [i for i in range(BANDS) if (band == i).any()]
        x = [float(np.sqrt(edges[i] * edges[i + 1])) for i in some]
        low = logs([float(values[band == i].min()) for i in some])
        high = logs([float(values[band == i].max()) for i in some])
        middle = logs([float(np.median(values[band == i])) for i in some])
        series.append(Series(name=name, x=x, y=middle, low=low, high=high))
    rows = [
        [name, each.beta, *each.beta_interval, each.gamma, each.constant, each.sums_grow]
        for name, each in (
            ("unstable", found.pointwise.unstable),
            ("stable", found.pointwise.stable),
        )
    ]
    return [
        Text(
            "w is the distance to the boundary, where the rates tend to 1: m - 1 >= C w^beta, and "
            "m >= (w(f x) / w(x))^gamma. Exponents are fitted along sampled orbits."
        ),
        LineChart(
            title="Rates against distance",
            x_label="w",
            y_label="log10 (rate - 1)",
            series=series,
            note="Line: median of a band of w; shade: from smallest to largest.",
        ),
        Table(
            columns=["direction", "beta", "low", "high", "gamma", "C", "growth of sums"],
            rows=rows,
            caption="Interval: bootstrap over orbits, 95 %. Growth: of the sum of log rates "
            "against log n.",
        ),
    ]


def _forms(found: "Finding") -> list[Block]:
    forms = found.forms
    assert forms is not None
    rows = [
        [
            name,
            "yes" if form.definite else "no",
            form.margin,
            f"({form.witness[0]:.4g}, {form.witness[1]:.4g})",
        ]
        for name, form in forms.forms.items()
    ]
    blocks: list[Block] = [
        Table(
            columns=["form", "definite", "margin", "smallest at"],
            rows=rows,
            caption="Margin: lower bound of the minimum over max(|x|, |y|) = 1.",
        )
    ]
    if forms.ok:
        blocks.append(
            Text(
                f"P has degree {2 * forms.k + 1}, Q degree {2 * forms.k2 + 1}. The stable "
                f"manifold leaves 0 with slope {forms.slope_stable:.8g}, the unstable one with "
                f"{forms.slope_unstable:.8g}. Pseudo-orbits with errors d are shadowed within a "
                f"constant times d^(1/{2 * max(forms.k, forms.k2) + 1})."
            )
        )
    return blocks


def _boxes(cones: "Cones") -> list[Block]:
    drawing = boxes_in_plane(
        "Where the cone condition is proved",
        cones.centres,
        cones.half_width,
        cones.holds,
        ("proved", "not proved"),
    )
    return [
        Text(
            "The cone is |s| <= |u| in the directions of the fixed point, the same everywhere. In "
            "ball arithmetic the derivative of every point of a box carries it strictly inside "
            "itself and lengthens its vectors."
        ),
        drawing,
    ]
