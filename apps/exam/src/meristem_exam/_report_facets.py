"""The page and the JSON of a study with facets."""

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import numpy as np

from meristem_core.report import (
    Block,
    Cell,
    Check,
    Checks,
    Details,
    Drawing,
    Page,
    Section,
    Table,
    Text,
    Tile,
    Tiles,
    render,
)
from meristem_exam._facets import MISFIT, ODD, FacetStudy
from meristem_exam._figures import intervals
from meristem_exam._report import MOODS
from meristem_exam._report_words import RANKED, SHOWN, chance, fixed, shown_of
from meristem_exam._result import SCHEMA, VERSIONS, numbers
from meristem_rasch import BiasTable, FacetTable

CAVEATS = (
    "Intervals are 95 % and hold the other facets fixed: they are too narrow with few ratings.",
    "A logit is the natural logarithm of odds: one logit more turns an even chance into 73 %.",
    "A fair mean is the score that is expected when all other facets are at their means.",
    "Infit is 1 where ratings scatter as the scale expects, above 1 where they are erratic.",
)


def render_facets(study: FacetStudy) -> str:
    """Return the report as one HTML file."""
    facets = study.calibration.facets
    sections = [Section(title="In short", blocks=[_tiles(study), _findings(study)])]
    sections += [
        Section(title=name.capitalize(), blocks=_facet(study, name, facet))
        for name, facet in facets.items()
    ]
    sections += [
        Section(title=f"{a.capitalize()} with {b}", blocks=[_bias(bias, a, b)])
        for (a, b), bias in study.bias.items()
    ]
    sections += [
        Section(title="The rating scale", blocks=[_steps(study)]),
        Section(title="What was read, and how it was measured", blocks=_method(study)),
    ]
    counts = ", ".join(f"{len(facet.labels):,} of {name}" for name, facet in facets.items())
    return render(
        Page(
            title="Exam report",
            subtitle=f"{study.table.source.rsplit('/', 1)[-1]}: {counts}",
            sections=sections,
        )
    )


def _tiles(study: FacetStudy) -> Tiles:
    table, missing = study.table, study.table.missing
    return Tiles(
        [
            Tile(
                label="ratings",
                value=f"{len(table.ratings.score):,}",
                note=f"{missing:,} rows without a score" if missing else "none missing",
            ),
            *(
                Tile(
                    label=name,
                    value=f"{len(facet.labels):,}",
                    note=f"reliability {facet.reliability:.2f}",
                )
                for name, facet in study.calibration.facets.items()
            ),
        ]
    )


def _findings(study: FacetStudy) -> Checks:
    return Checks(
        [
            Check(claim=each.text, verdict=MOODS[each.good], holds=each.good)
            for each in study.findings
        ]
    )


def _facet(study: FacetStudy, name: str, facet: FacetTable) -> list[Block]:
    person = name == study.table.person
    order = np.argsort(-facet.measure, kind="stable")
    shown = order if len(order) <= RANKED else np.r_[order[: RANKED // 2], order[-RANKED // 2 :]]
    half = 1.96 * facet.se
    drawing = Drawing(
        title=f"Measures of {name}",
        svg=intervals(
            [facet.labels[k] for k in shown],
            facet.measure[shown].tolist(),
            (facet.measure - half)[shown].tolist(),
            (facet.measure + half)[shown].tolist(),
            axis="logits; right = " + ("scores higher" if person else "harder to score with"),
        ),
        note=""
        if len(shown) == len(order)
        else f"The {RANKED // 2} highest and lowest of {len(order):,}.",
    )
    rows: list[Sequence[Cell]] = [
        [
            facet.labels[k],
            f"{facet.count[k]:,.0f}",
            fixed(float(facet.measure[k])),
            fixed(1.96 * float(facet.se[k])),
            fixed(float(facet.observed[k]) + study.table.lowest),
            fixed(float(facet.fair[k]) + study.table.lowest),
            fixed(float(facet.infit[k])),
            fixed(float(facet.outfit[k])),
        ]
        for k in order[:SHOWN]
    ]
    table = Table(
        columns=["", "ratings", "logits", "±", "mean", "fair mean", "infit", "outfit"],
        rows=rows,
        caption=shown_of(min(SHOWN, len(order)), len(order), "levels") + "highest first",
    )
    words = (
        f"Separation {facet.separation:.1f}: the spread of the measures in units of their error. "
        f"That all {len(order):,} are equal has p {chance(facet.p)}."
    )
    return [Text(words), drawing, Details(summary=f"Table of {name}", blocks=[table])]


def _bias(found: BiasTable, first: str, second: str) -> Table:
    order = np.argsort(-np.abs(found.z), kind="stable")[:SHOWN]
    rows: list[Sequence[Cell]] = [
        [
            found.first[k],
            found.second[k],
            f"{found.count[k]:,.0f}",
            fixed(float(found.bias[k])),
            fixed(1.96 * float(found.se[k])),
            chance(float(found.p_holm[k])),
        ]
        for k in order
    ]
    return Table(
        columns=[first, second, "ratings", "logits", "±", "p (Holm)"],
        rows=rows,
        caption=shown_of(len(order), len(found.bias), "combinations")
        + "surest first; positive: higher scores than the measures of the two say",
    )


def _steps(study: FacetStudy) -> Table:
    found = study.calibration
    groups = found.step_groups[:SHOWN]
    lowest = study.table.lowest
    return Table(
        columns=["steps of", *(f"to {lowest + k + 1}" for k in range(found.steps.shape[1]))],
        rows=[
            [name, *(fixed(float(x)) for x in row)]
            for name, row in zip(groups, found.steps, strict=False)
        ],
        caption="logits at which two neighbouring scores are equally likely, less the level's own "
        "measure; where they do not rise, a score in between is never the likeliest",
    )


def _method(study: FacetStudy) -> list[Block]:
    found, table = study.calibration, study.table
    rows: list[Sequence[Cell]] = [
        ["source", table.source],
        ["ratings", f"{len(table.ratings.score):,}, {table.missing:,} rows without a score"],
        ["scores", f"{table.lowest} to {table.lowest + int(table.ratings.score.max())}"],
        ["model", "many-facet Rasch, steps " + (f"by {table.steps}" if table.steps else "shared")],
        ["estimator", "joint maximum likelihood, 0.3 points spread over each row (no extremes)"],
        ["counts upwards", table.person],
        ["log-likelihood", f"{found.loglik:,.2f}, {found.n_parameters:,} parameters"],
        ["erratic", f"infit above {MISFIT}; unexpected: beyond {ODD:.0f} standard errors"],
        ["versions", ", ".join(f"{name} {version(name)}" for name in VERSIONS)],
    ]
    return [
        Table(columns=["what", "value"], rows=rows),
        Details(summary="What to keep in mind", blocks=[Text(words) for words in CAVEATS]),
    ]


def facets_json(study: FacetStudy) -> dict[str, Any]:
    """Return the whole study as plain values."""
    found, table = study.calibration, study.table
    return {
        "schema": SCHEMA,
        "source": {
            "files": [table.source],
            "scores": len(table.ratings.score),
            "missing": table.missing,
            "lowest_score": table.lowest,
        },
        "calibration": {
            "model": "facets",
            "method": "jml",
            "person": table.person,
            "steps_by": table.steps,
            "step_groups": list(found.step_groups),
            "steps": [numbers(row) for row in found.steps],
            "loglik": found.loglik,
            "n_parameters": found.n_parameters,
        },
        "facets": {name: _facet_json(facet, table.lowest) for name, facet in found.facets.items()},
        "bias": [
            {
                "first": a,
                "second": b,
                "labels": [list(pair) for pair in zip(bias.first, bias.second, strict=True)],
                "logits": numbers(bias.bias),
                "se": numbers(bias.se),
                "p_holm": numbers(bias.p_holm),
                "count": numbers(bias.count),
            }
            for (a, b), bias in study.bias.items()
        ],
        "unexpected": study.unexpected,
        "findings": [{"text": each.text, "good": each.good} for each in study.findings],
        "versions": {name: version(name) for name in VERSIONS},
    }


def _facet_json(facet: FacetTable, lowest: int) -> dict[str, Any]:
    return {
        "labels": list(facet.labels),
        "measure": numbers(facet.measure),
        "se": numbers(facet.se),
        "infit": numbers(facet.infit),
        "outfit": numbers(facet.outfit),
        "count": numbers(facet.count),
        "mean": numbers(facet.observed + lowest),
        "fair_mean": numbers(facet.fair + lowest),
        "separation": facet.separation,
        "reliability": facet.reliability,
        "chi2": facet.chi2,
        "df": facet.df,
        "p": facet.p,
    }
