"""The exam as one page: what was read, findings, and a section for everything that was measured."""

from collections.abc import Sequence
from importlib.metadata import version

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
from meristem_exam._exam import Exam, RaterStudy
from meristem_exam._figures import intervals, ruler, scatter
from meristem_exam._result import VERSIONS
from meristem_rasch import Alignment, LengthStudy, Overdispersion

MOODS = {True: "fine", None: "worth a look", False: "trouble"}
SHOWN = 50  # rows of a table; the JSON holds all
RANKED = 40  # systems in the drawing of the ranking
RUNGS = {
    "fixed": "the label as it stands, one curve, ability 0",
    "pooled": "one fitted curve for all systems",
    "system": "one fitted curve, systems of different ability",
    "rasch": "free difficulty of every item, in sample",
    "loo": "difficulty met by the other systems only",
}
CAVEATS = (
    "Intervals are 95 %. Those of abilities cover the sampling of items, not another prompt.",
    "A logit is the natural logarithm of odds: one logit more turns an even chance into 73 %.",
    "Mean squares near 1 mean that answers scatter as the scale expects; judge them by size.",
    "R² over all systems mixes ability and difficulty; that of one system does not.",
    "Labels and graders may share biases with the systems they judge.",
)


def render_exam(exam: Exam) -> str:
    """Return the report as one HTML file."""
    parts = [
        ("In short", [_tiles(exam), _findings(exam)]),
        ("One ruler for systems and items", _ruler(exam)),
        ("Ranking", _ranking(exam)),
        ("Items", _items(exam)),
        ("How systems fit the scale", _systems(exam)),
        ("Do the difficulty labels mean anything?", _alignment(exam)),
        ("Is one number per system enough?", _dispersion(exam)),
        ("Length of the answers", _length(exam)),
        ("Do items work alike in both groups?", _dif(exam)),
        ("Do the graders agree?", _graders(exam)),
        ("What was read, and how it was measured", _method(exam)),
    ]
    names = ", ".join(name.rsplit("/", 1)[-1] for name in exam.evidence.source[:3])
    return render(
        Page(
            title="Exam report",
            subtitle=f"{names}: {len(exam.scale.systems):,} systems, "
            f"{len(exam.scale.items):,} items",
            sections=[Section(title=title, blocks=blocks) for title, blocks in parts if blocks],
        )
    )


def _tiles(exam: Exam) -> Tiles:
    s, values = exam.scale, exam.evidence.matrix.values
    missing = float(np.isnan(values).mean())
    flagged = int((s.item_fit.noisy | s.reversed).sum())
    return Tiles(
        [
            Tile(label="systems", value=f"{len(s.systems):,}", note="or persons"),
            Tile(label="items", value=f"{len(s.items):,}", note=f"{flagged:,} worth a look"),
            Tile(
                label="answers",
                value=f"{int((~np.isnan(values)).sum()):,}",
                note="none missing" if not missing else f"{missing:.1%} missing",
            ),
            Tile(
                label="reliability",
                value=f"{s.reliability:.3f}",
                note="share of the spread that is not error",
            ),
            Tile(
                label="mean score",
                value=f"{float(np.nanmean(s.rate)):.1%}",
                note="of the possible points",
            ),
        ]
    )


def _findings(exam: Exam) -> Checks:
    checks = [
        Check(claim=each.text, verdict=MOODS[each.good], holds=each.good) for each in exam.findings
    ]
    checks += [Check(claim=words, verdict="note", holds=None) for words in exam.warnings]
    return Checks(checks)


def _ruler(exam: Exam) -> list[Block]:
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


def _ranking(exam: Exam) -> list[Block]:
    s = exam.scale
    known = np.flatnonzero(~np.isnan(s.ability))
    order = known[np.argsort(-s.ability[known], kind="stable")]
    shown = order if len(order) <= RANKED else np.r_[order[:25], order[-5:]]
    rows = [_system_row(exam, int(v)) for v in order[:SHOWN]]
    more = f"the best {len(shown) - 5} and the last 5 of {len(order):,}; all in the JSON"
    table = Table(
        columns=["system", "score", "ability, logits", "±", "rank", "outfit"],
        rows=rows,
        caption=_of(len(rows), len(order), "systems")
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
        _fixed(float(s.ability[v])),
        _fixed(1.96 * float(s.ability_se[v])),
        f"{best}" if best == worst else f"{best} to {worst}",
        _fixed(float(s.system_fit.outfit[v])),
    ]


def _fixed(x: float | int) -> str | None:
    return f"{x:.2f}".replace("-", "−") if np.isfinite(x) else None


def _of(shown: int, total: int, what: str) -> str:
    return "" if shown == total else f"{shown} of {total:,} {what}, all in the JSON; "


def _items(exam: Exam) -> list[Block]:
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
        *([table] if worst else [Text("No item stands out.")]),
        Details(summary="The hardest items", blocks=[extra]),
        *pairs,
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
        _fixed(float(s.difficulty[i])),
        _fixed(float(s.item_fit.outfit[i])),
        _fixed(float(s.item_fit.infit[i])),
        _fixed(float(s.discrimination[i])),
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
                rows=[[a, b, _fixed(q)] for a, b, q in d.pairs],
            ),
        ],
    )


def _systems(exam: Exam) -> list[Block]:
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
                        _fixed(float(s.ability[v])),
                        _fixed(float(fit.outfit[v])),
                        _fixed(float(fit.infit[v])),
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


def _alignment(exam: Exam) -> list[Block]:
    a = exam.alignment
    if a is None or exam.evidence.difficulty is None:
        return []
    label = exam.evidence.difficulty
    kept = np.flatnonzero(~np.isnan(label))
    names = exam.evidence.difficulty_names
    s = exam.scale
    jitter = np.random.default_rng(0).uniform(-0.18, 0.18, len(kept)) if names else 0.0
    met = Drawing(
        title="Label against the difficulty that systems meet",
        svg=scatter(
            (label[kept] + jitter).tolist(),
            a.difficulty.tolist(),
            [s.items[i] for i in kept],
            ["c0"] * len(kept),
            x_label="difficulty label",
            y_label="difficulty met, logits",
            x_ticks=[(k + 1.0, name) for k, name in enumerate(names) if k + 1 in label] or None,
            lines=[_means_by_label(label[kept], a.difficulty)],
        ),
        legend=[("c0", "an item"), ("c1", "mean of the label")],
    )
    ladder = Drawing(
        title="How much of the scores each reading explains",
        svg=intervals(
            [rung.name for rung in a.rungs],
            [max(rung.r2, -1.0) for rung in a.rungs],
            [max(rung.low, -1.0) for rung in a.rungs],
            [max(rung.high, -1.0) for rung in a.rungs],
            axis="R²",
        ),
        note="fixed, pooled and system use the labels; rasch and loo do not. Values below −1 are "
        "drawn there.",
    )
    rows: list[Sequence[Cell]] = [
        [
            rung.name,
            RUNGS[rung.name],
            _fixed(rung.r2),
            f"{_fixed(rung.low)} to {_fixed(rung.high)}",
            None if rung.r2_held_out is None else _fixed(rung.r2_held_out),
        ]
        for rung in a.rungs
    ]
    return [
        Text(
            "If a label is right, systems solve fewer of the items that it calls hard. The rows "
            "climb from the literal reading of the label to difficulty as the other systems meet "
            "it, which is the most that any label could explain for a single scale."
        ),
        met,
        ladder,
        Table(
            columns=["reading", "what it assumes", "R²", "95 % over items", "on new items"],
            rows=rows,
            caption=f"{a.items:,} labelled items"
            + (f", {a.unlabelled:,} without a label left out" if a.unlabelled else ""),
        ),
        *_correlations(a),
    ]


def _means_by_label(
    label: np.ndarray, difficulty: np.ndarray
) -> tuple[list[float], list[float], str]:
    edges = np.unique(label)
    if len(edges) > 12:
        order = np.argsort(label, kind="stable")
        parts = np.array_split(order, 8)
    else:
        parts = [np.flatnonzero(label == edge) for edge in edges]
    return (
        [float(label[part].mean()) for part in parts],
        [float(difficulty[part].mean()) for part in parts],
        "c1",
    )


def _correlations(a: Alignment) -> list[Block]:
    if not a.correlations:
        return []
    groups = list(dict.fromkeys(each.group for each in a.correlations))
    rows: list[Sequence[Cell]] = []
    for group in groups:
        found = [each for each in a.correlations if each.group == group]
        rows.append(
            [
                group,
                found[0].n,
                _fixed(float(np.mean([each.pearson for each in found]))),
                f"{sum(each.high < 0 for each in found)} of {len(found)}",
                f"{sum(each.low > 0 for each in found)} of {len(found)}",
            ]
        )
    return [
        Table(
            columns=["items", "n", "mean correlation", "surely negative", "surely positive"],
            rows=rows,
            caption="Label and score of one system: for how many systems the 95 % interval "
            "excludes 0; negative = harder labels score less",
        )
    ]


def _dispersion(exam: Exam) -> list[Block]:
    d = exam.overdispersion
    if d is None:
        return []
    return [
        Text(
            "With independent points, scores of one expectation would scatter only by chance. What "
            "exceeds it are strengths and weaknesses of systems on particular items, or points "
            "that depend on each other within an item."
        ),
        _dispersion_drawing(d),
        Table(
            columns=["", "times the chance variance", "95 % over items", "chance gives"],
            rows=[
                [
                    name,
                    _fixed(x.ratio),
                    f"{_fixed(x.low)} to {_fixed(x.high)}",
                    f"{_fixed(x.chance_low)} to {_fixed(x.chance_high)}",
                ]
                for name, x in (
                    ("difficulty from all systems", d.in_sample),
                    ("difficulty from the other systems", d.held_out),
                )
            ],
        ),
    ]


def _dispersion_drawing(d: Overdispersion) -> Drawing:
    x = [row.expected for row in d.bins]
    return Drawing(
        title="Variance around the scale",
        svg=scatter(
            x,
            [row.variance for row in d.bins],
            [f"{row.cells} scores" for row in d.bins],
            ["c0"] * len(d.bins),
            x_label="expected score",
            y_label="variance",
            lines=[
                (x, [row.binomial for row in d.bins], "c1"),
                (x, [row.variance for row in d.bins], "c0"),
            ],
        ),
        legend=[("c0", "observed"), ("c1", "if points were independent")],
    )


def _length(exam: Exam) -> list[Block]:
    if exam.length is None:
        return []
    rows: list[Sequence[Cell]] = []
    for name, study in (("all outputs", exam.length), ("answered only", exam.length_answered)):
        if study is not None:
            rows += _length_rows(name, study)
    study = exam.length_answered or exam.length
    order = np.argsort([each.r for each in study.others])
    shown = order[:RANKED]
    return [
        Text(
            "Long answers may mark hard questions, or systems that are lost. The lengths of the "
            "other systems' answers cannot know that this system is lost: where they predict its "
            "score, length measures the question."
        ),
        Drawing(
            title="Other systems' length against a system's score",
            svg=intervals(
                [study.systems[v] for v in shown],
                [study.others[v].r for v in shown],
                [study.others[v].low for v in shown],
                [study.others[v].high for v in shown],
                axis="correlation over items; negative = longer is harder",
            ),
        ),
        Table(
            columns=["outputs", "what", "correlation or R²", "95 %", "n"],
            rows=rows,
            caption="Lengths are logarithms, standardised within each system"
            + (
                f"; {exam.length_answered.dropped:,} outputs without an answer left out below"
                if exam.length_answered
                else ""
            ),
        ),
    ]


def _length_rows(name: str, study: LengthStudy) -> list[Sequence[Cell]]:
    def row(what: str, r: float, low: float, high: float, n: int) -> list[Cell]:
        return [name, what, _fixed(r), f"{_fixed(low)} to {_fixed(high)}", n]

    item, partial = study.items, study.partial
    rows: list[Sequence[Cell]] = [
        row("mean length, mean score of items", item.r, item.low, item.high, item.n)
    ]
    if partial is not None:
        rows.append(
            row("the same within subjects", partial.r, partial.low, partial.high, partial.n)
        )
    rung, free = study.alignment.rung("system"), study.alignment.rung("loo")
    rows.append(row("R² of length as difficulty", rung.r2, rung.low, rung.high, item.n))
    rows.append(row("R² of difficulty from other systems", free.r2, free.low, free.high, item.n))
    return rows


def _dif(exam: Exam) -> list[Block]:
    d = exam.dif
    if d is None:
        return []
    tested = np.flatnonzero(~np.isnan(d.effect))
    order = tested[np.argsort(-np.abs(d.effect[tested]))][:RANKED]
    half = 1.96 * d.se
    colour = {"A": "c0", "B": "c3", "C": "c1", "-": "c5"}
    return [
        Text(
            f"Items right of 0 are harder for {d.focal} than for {d.reference} of the same "
            f"ability. The scales are aligned on {', '.join(d.anchors[:3])}."
        ),
        Drawing(
            title=f"Difference of difficulty, {d.focal} minus {d.reference}",
            svg=intervals(
                [d.items[i] for i in order],
                d.effect[order].tolist(),
                (d.effect - half)[order].tolist(),
                (d.effect + half)[order].tolist(),
                axis="logits",
                kinds=[colour[d.classes[i]] for i in order],
            ),
            legend=[("c0", "A negligible"), ("c3", "B moderate"), ("c1", "C large")],
        ),
    ]


def _graders(exam: Exam) -> list[Block]:
    studies = [(n, x) for n, x in (("graders", exam.graders), ("humans", exam.human)) if x]
    if not studies:
        return []
    blocks: list[Block] = [
        Text(
            "Severity and noise are different diseases: a strict grader can be corrected, a noisy "
            "one cannot. The inconsistent score rate (share of scores further than one standard "
            "deviation from the mean of their unit) says little about either: bell-shaped grades "
            "alone give about 32 %."
        ),
        Table(
            columns=["", *(name for name, _ in studies)],
            rows=_agreement_rows([study for _, study in studies]),
        ),
    ]
    for name, study in studies:
        blocks += [_severity(name, study), *_rater_table(study)]
    return blocks


def _rater_table(study: RaterStudy) -> list[Block]:
    if study.infit is None or study.fair is None:
        return []
    order = np.argsort(-study.severity)[:SHOWN]
    rows: list[Sequence[Cell]] = [
        [
            study.raters[r],
            _fixed(float(study.severity[r])),
            _fixed(1.96 * float(study.severity_se[r])),
            _fixed(float(study.infit[r])),
            _fixed(float(study.fair[r])),
        ]
        for r in order
    ]
    table = Table(
        columns=["rater", "severity, logits", "±", "infit", "fair mean"],
        rows=rows,
        caption="infit: 1 = as consistent as expected, above = erratic; fair mean: the grade that "
        "an average unit would get from this rater",
    )
    return [Details(summary="All raters", blocks=[table])]


def _agreement_rows(studies: Sequence[RaterStudy]) -> list[list[Cell]]:
    found = [study.agreement for study in studies]
    return [
        ["units rated at least twice", *(f"{a.units:,}" for a in found)],
        [
            "Krippendorff's alpha (1 = agreement, 0 = chance)",
            *(f"{a.alpha:.3f} [{a.alpha_low:.3f}, {a.alpha_high:.3f}]" for a in found),
        ],
        ["intraclass correlation of one grade", *(f"{a.icc:.3f}" for a in found)],
        ["equal grades", *(f"{a.exact:.1%}" for a in found)],
        ["at most one step apart", *(f"{a.within_one:.1%}" for a in found)],
        ["inconsistent score rate", *(f"{a.isr.rate:.1%}" for a in found)],
        ["the same from a bell on this grade scale", *(f"{a.isr.gaussian:.1%}" for a in found)],
        ["spread of severity / its error", *(f"{study.separation:.1f}" for study in studies)],
    ]


def _severity(name: str, study: RaterStudy) -> Drawing:
    order = np.argsort(-study.severity)
    shown = order if len(order) <= RANKED else np.r_[order[:20], order[-20:]]
    half = 1.96 * study.severity_se
    return Drawing(
        title=f"Severity of the {name}",
        svg=intervals(
            [study.raters[r] for r in shown],
            study.severity[shown].tolist(),
            (study.severity - half)[shown].tolist(),
            (study.severity + half)[shown].tolist(),
            axis="logits; right = stricter",
        ),
        note="" if len(shown) == len(order) else f"The 20 strictest and mildest of {len(order)}.",
    )


def _method(exam: Exam) -> list[Block]:
    s, values = exam.scale, exam.evidence.matrix.values
    seen = ~np.isnan(values)
    patterns = len(np.unique(np.packbits(seen, axis=1), axis=0))
    extreme = int(((s.rate <= 0) | (s.rate >= 1)).sum())
    rows: list[Sequence[Cell]] = [
        ["source", ", ".join(exam.evidence.source)],
        ["scores", f"{int(seen.sum()):,} of {values.size:,}, in {patterns:,} patterns of answers"],
        ["systems with no or all points", f"{extreme:,}"],
        [
            "items solved by none or all",
            f"{int(((s.item_rate <= 0) | (s.item_rate >= 1)).sum()):,}",
        ],
        ["model", s.choice.model],
        ["why this estimator", s.choice.reason],
        *([] if s.loglik is None else [["log-likelihood", f"{s.loglik:,.2f}"]]),
        *([] if s.dispersion is None else [["dispersion", f"{s.dispersion:.3f}"]]),
        ["seed", str(exam.seed)],
        ["versions", ", ".join(f"{name} {version(name)}" for name in VERSIONS)],
    ]
    return [
        Table(columns=["what", "value"], rows=rows),
        Details(summary="What to keep in mind", blocks=[Text(words) for words in CAVEATS]),
    ]
