"""Sections of the report about the scale: the ruler, the ranking, items, systems."""

import numpy as np

from meristem_core.report import Block, Cell, Details, Drawing, Table, Text
from meristem_exam._exam import Exam
from meristem_exam._figures import intervals, ruler, scatter
from meristem_exam._report_words import RANKED, SHOWN, fixed, shown_of

OPEN = 15  # rows of the worst items that are seen at once


def ruler_section(exam: Exam) -> list[Block]:
    """Return the Wright map."""
    s = exam.scale
    return [
        Text(
            "Systems and items stand on the same scale. A system solves an item at its own place "
            "half of the time, easier items to the left more often, harder ones to the right less "
            "often. Where no items stand, systems cannot be told apart well."
        ),
        Drawing(
            title="Wright map",
            svg=ruler(s.ability, s.systems, s.difficulty, s.items),
            legend=[("c0", "systems"), ("c1", "items")],
            wide=True,
        ),
    ]


def ranking_section(exam: Exam) -> list[Block]:
    """Return the abilities with their intervals."""
    s = exam.scale
    known = np.flatnonzero(~np.isnan(s.ability))
    order = known[np.argsort(-s.ability[known], kind="stable")]
    shown = order if len(order) <= RANKED else np.r_[order[:25], order[-5:]]
    rows = [_system_row(exam, int(v)) for v in order[:SHOWN]]
    more = f"the best {len(shown) - 5} and the last 5 of {len(order):,}; all in the JSON"
    table = Table(
        columns=["system", "score", "ability, logits", "±", "rank", "outfit"],
        rows=rows,
        caption=shown_of(len(rows), len(order), "systems")
        + "rank: places that the errors allow; outfit: 1 = as expected, above = erratic",
    )
    return [
        Drawing(
            title="Ability with 95 % interval",
            svg=intervals(
                [s.systems[v] for v in shown],
                s.ability[shown].tolist(),
                s.low[shown].tolist(),
                s.high[shown].tolist(),
                axis="ability, logits",
            ),
            note="Systems whose intervals overlap much cannot be told apart."
            + ("" if len(shown) == len(order) else f" Shown: {more}."),
        ),
        table if len(rows) <= 12 else Details(summary="All numbers", blocks=[table]),
    ]


def _system_row(exam: Exam, v: int) -> list[Cell]:
    s = exam.scale
    best, worst = s.rank[v].tolist()
    return [
        s.systems[v],
        f"{float(s.rate[v]):.1%}",
        fixed(float(s.ability[v])),
        fixed(1.96 * float(s.ability_se[v])),
        f"{best}" if best == worst else f"{best} to {worst}",
        fixed(float(s.system_fit.outfit[v])),
    ]


def items_section(exam: Exam) -> list[Block]:
    """Return item fit, and the items to look at first."""
    s = exam.scale
    fit = s.item_fit
    known = np.flatnonzero(np.isfinite(fit.outfit) & (fit.outfit > 0) & np.isfinite(s.difficulty))
    wrong, noisy = s.reversed, fit.noisy
    kinds = ["c1" if wrong[i] else "c3" if noisy[i] else "c0" for i in known]
    drawn = Drawing(
        title="Item fit",
        svg=scatter(
            s.difficulty[known].tolist(),
            fit.outfit[known].tolist(),
            [s.items[i] for i in known],
            kinds,
            x_label="difficulty, logits",
            y_label="outfit mean square",
            zone=(0.7, 1.3),
            log_y=True,
        ),
        legend=[
            ("c0", "as expected"),
            ("c3", "noisy: outfit above 1.3, significant"),
            ("c1", "stronger systems do worse"),
        ],
        note="Above the grey zone chance or a wrong key plays a part; below it the item only "
        "repeats what the others say."
        + (" Of many ordinary items a sample is drawn." if len(known) > 1500 else ""),
    )
    varied = np.flatnonzero(np.isfinite(s.discrimination))
    power = Drawing(
        title="How well items separate systems",
        svg=scatter(
            s.item_rate[varied].tolist(),
            s.discrimination[varied].tolist(),
            [s.items[i] for i in varied],
            ["c1" if wrong[i] else "c3" if noisy[i] else "c0" for i in varied],
            x_label="share solved",
            y_label="correlation with the other items",
        ),
        note="Below 0 stronger systems do worse than weaker ones, by chance or by a wrong key.",
    )
    worst = _worst(exam)
    table = Table(
        columns=["item", "solved", "difficulty", "outfit", "infit", "correlation", "why"],
        rows=[_item_row(exam, i) for i in worst],
        caption=f"{len(worst)} items to look at first of {len(s.items):,}",
    )
    pairs = [] if exam.dependence is None else [_pairs(exam)]
    hard = [_item_row(exam, int(i)) for i in np.argsort(-np.nan_to_num(s.difficulty, nan=-99))[:25]]
    extra = Table(columns=table.columns, rows=hard, caption="The 25 hardest items; all in the JSON")
    return [
        drawn,
        power,
        *_first_of(table, worst),
        Details(summary="The hardest items", blocks=[extra]),
        *pairs,
    ]


def _first_of(table: Table, worst: list[int]) -> list[Block]:
    """Return the first rows open and the rest to unfold."""
    if not worst:
        return [Text("No item stands out.")]
    if len(worst) <= OPEN:
        return [table]
    rest = Table(columns=table.columns, rows=table.rows[OPEN:])
    return [
        Table(columns=table.columns, rows=table.rows[:OPEN], caption=table.caption),
        Details(summary=f"{len(worst) - OPEN} more", blocks=[rest]),
    ]


def _worst(exam: Exam) -> list[int]:
    s = exam.scale
    wrong = [int(i) for i in np.argsort(s.discrimination) if s.reversed[i]]
    noisy = np.flatnonzero(s.item_fit.noisy)
    by_outfit = [int(i) for i in noisy[np.argsort(-s.item_fit.outfit[noisy])]]
    return list(dict.fromkeys([*wrong[: SHOWN // 2], *by_outfit]))[:SHOWN]


def _item_row(exam: Exam, i: int) -> list[Cell]:
    s = exam.scale
    why = []
    if s.reversed[i]:
        why.append("stronger systems do worse: check the key")
    if s.item_fit.noisy[i]:
        why.append("noisy")
    if s.item_rate[i] in (0.0, 1.0):
        why.append("solved by all" if s.item_rate[i] else "solved by none")
    return [
        s.items[i],
        f"{float(s.item_rate[i]):.0%}",
        fixed(float(s.difficulty[i])),
        fixed(float(s.item_fit.outfit[i])),
        fixed(float(s.item_fit.infit[i])),
        fixed(float(s.discrimination[i])),
        ", ".join(why) or "–",
    ]


def _pairs(exam: Exam) -> Details:
    d = exam.dependence
    assert d is not None
    return Details(
        summary="Items that repeat each other",
        blocks=[
            Text(
                "Correlation of what is left of two items' answers once ability is taken out "
                "(Yen's Q3, above its mean). Above 0.2 two items measure something of their own "
                "together, such as a shared passage or a near duplicate."
            ),
            Table(
                columns=["item", "item", "Q3 above the mean"],
                rows=[[a, b, fixed(q)] for a, b, q in d.pairs],
            ),
        ],
    )


def systems_section(exam: Exam) -> list[Block]:
    """Return system fit, and whether one scale is enough."""
    s = exam.scale
    fit = s.system_fit
    known = np.flatnonzero(np.isfinite(fit.outfit) & (fit.outfit > 0) & np.isfinite(s.ability))
    if not len(known):
        return []
    blocks: list[Block] = [
        Text(
            "A system fits when it solves the easy items and fails on the hard ones, up to chance. "
            "One that fails on easy items and solves hard ones has gaps, memorised answers or a "
            "broken output format."
        ),
        Drawing(
            title="System fit",
            svg=scatter(
                s.ability[known].tolist(),
                fit.outfit[known].tolist(),
                [s.systems[v] for v in known],
                ["c3" if fit.noisy[v] else "c0" for v in known],
                x_label="ability, logits",
                y_label="outfit mean square",
                zone=(0.7, 1.3),
                log_y=True,
            ),
            legend=[("c0", "as expected"), ("c3", "erratic: outfit above 1.3, significant")],
        ),
    ]
    odd = known[fit.noisy[known]]
    if len(odd):
        odd = odd[np.argsort(-fit.outfit[odd])][:20]
        blocks.append(
            Table(
                columns=["most erratic system", "score", "ability, logits", "outfit", "infit"],
                rows=[
                    [
                        s.systems[v],
                        f"{float(s.rate[v]):.1%}",
                        fixed(float(s.ability[v])),
                        fixed(float(fit.outfit[v])),
                        fixed(float(fit.infit[v])),
                    ]
                    for v in odd
                ],
            )
        )
    h = exam.halves
    if h is not None:
        p = "< 0.0001" if h.test.p < 1e-4 else f"{h.test.p:.3f}"
        blocks.append(
            Text(
                f"One scale or two? Measured separately on {h.by}, the {h.what} differ by "
                f"{h.rmsd:.2f} logits beyond error, correlation {h.correlation:.3f} (Andersen's "
                f"test: {h.test.statistic:,.0f} on {h.test.df:,} degrees of freedom, p {p})."
            )
        )
    return blocks
