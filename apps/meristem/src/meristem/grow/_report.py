"""The report of a grown model: what it learned, when, and what that cost."""

from collections.abc import Mapping, Sequence
from typing import Any

from meristem._rows import Row, measured_text
from meristem.grow._corpus import SPLITS
from meristem.grow._exam_report import exam_blocks
from meristem.grow._phases import Learning
from meristem_core.report import (
    Check,
    Checks,
    Details,
    HorizontalLine,
    LineChart,
    Link,
    Page,
    Samples,
    Section,
    Series,
    Table,
    Text,
    Tile,
    Tiles,
    render,
    render_svg,
)

KINDS = {
    "initial": "present at the first snapshot",
    "emergent": "come later and stay",
    "transient": "come later and go",
    "dead": "hardly ever fire",
}
HOLDS = {"reproduced": True, "refuted": False, "partly": None, "not testable here": None}


def render_report(grown: Any, training: Sequence[Mapping[str, float | int]]) -> str:
    """Return the report as one HTML file.

    Parameters
    ----------
    grown
        The finished run, a `Grown`.
    training
        The records of the pre-training stage's `metrics.jsonl`.
    """
    sections = [
        Section(title="In short", blocks=[_tiles(grown), _checks(grown.rows)]),
        Section(title="Loss", blocks=_loss(grown, training)),
        Section(title="Learning phases", blocks=_phases(grown)),
        Section(title="An exam on one scale", blocks=exam_blocks(grown.exam)),
        Section(title="Features", blocks=_features(grown.evolution)),
        Section(title="Fine-tuning and preferences", blocks=_tuning(grown.tuning)),
        Section(title="What it writes", blocks=_samples(grown)),
        Section(title="Votes at test time", blocks=_deliberation(grown.deliberation)),
        Section(title="Text", blocks=[_corpus_table(grown)]),
        Section(title="Cost", blocks=_cost(grown)),
        Section(title="Settings", blocks=[_settings(grown.config)]),
    ]
    sizes = grown.config["sizes"]
    return render(
        Page(
            title="Growing a language model",
            subtitle=f"{grown.pretrained.parameters / 1e6:.2f} M parameters, "
            f"{grown.pretrained.steps:,} steps of {sizes['batch']} x {sizes['context']} tokens, "
            f"{len(grown.phases.steps)} snapshots, seed {grown.config['seed']}",
            sections=sections,
        )
    )


def render_figure(grown: Any) -> str:
    """Return loss and distance to n-grams on the first domain as one SVG file."""
    name, domain = next(iter(grown.phases.domains.items()))
    return render_svg(
        [
            _loss_chart(name, grown.phases.steps, domain),
            _distance_chart(name, grown.phases.steps, domain),
        ]
    )


def _tiles(grown: Any) -> Tiles:
    losses = [
        Tile(label=f"loss on {name}", value=f"{domain.loss[-1]:.3f}", note="nats a token, held out")
        for name, domain in grown.phases.domains.items()
    ]
    return Tiles(
        [
            *losses,
            Tile(
                label="training speed",
                value=f"{grown.pretrained.tokens_per_second:,.0f}",
                note="tokens a second",
            ),
            Tile(label="time", value=_duration(sum(grown.seconds.values())), note="all stages"),
            Tile(
                label="peak memory",
                value=f"{grown.peak_memory / 2**30:.2f} GiB",
                note="resident, one process",
            ),
        ]
    )


def _checks(rows: Sequence[Row]) -> Checks:
    return Checks(
        [
            Check(
                claim=row.claim,
                verdict=row.verdict,
                holds=HOLDS[row.verdict],
                detail=f"measured {measured_text(row)}, claimed {row.claimed}; {row.note}",
            )
            for row in rows
        ]
    )


def _loss(grown: Any, training: Sequence[Mapping[str, float | int]]) -> list[Text | LineChart]:
    curve = Series(
        name="training loss",
        x=[record["step"] for record in training],
        y=[record["loss"] for record in training],
    )
    charts = [LineChart(title="Training", x_label="step", y_label="nats a token", series=[curve])]
    charts += [
        _loss_chart(name, grown.phases.steps, domain)
        for name, domain in grown.phases.domains.items()
    ]
    text = (
        "A model that knows only how often each token occurs reaches the level of the unigrams; "
        "one that knows which token follows which, the level of the bigrams. Their entropies in "
        f"the training text are {grown.phases.unigram_entropy:.2f} and "
        f"{grown.phases.bigram_entropy:.2f} nats a token. What lies below needs more context."
    )
    return [Text(text), *charts]


def _phases(grown: Any) -> list[Text | LineChart]:
    charts = [
        _distance_chart(name, grown.phases.steps, domain)
        for name, domain in grown.phases.domains.items()
    ]
    induction = LineChart(
        title="Induction",
        x_label="step",
        y_label="gain, nats a token",
        series=[Series(name="gain", x=grown.phases.steps, y=grown.phases.induction)],
        note="How much better the second half of a repeated random sequence is predicted.",
    )
    text = (
        "q is the model's prediction, p1 the unigrams and p2 the bigrams of the training text. In "
        "the statistical phase the model first comes close to p1 and leaves it for p2; once it "
        "uses longer contexts it leaves p2 as well, and the divergence from it grows again."
    )
    return [Text(text), *charts, induction]


def _features(evolution: Any) -> list[Text | Link | Tiles | LineChart]:
    found = evolution.measured
    steps, turning = found.steps, found.turning
    tiles = [Tile(label=kind, value=f"{count:,}", note=KINDS[kind])
             for kind, count in found.kinds["0.5"].items()]  # fmt: skip
    tiles.append(
        Tile(
            label="directions turn before",
            value=f"step {turning.step:,}",
            note=f"95 % interval {turning.low:,} to {turning.high:,}",
        )
    )
    emergence = LineChart(
        title="Features that emerge",
        x_label="step",
        y_label="features",
        series=[
            Series(name=f"norm above {threshold} of the largest", x=steps, y=counts)
            for threshold, counts in found.emergence.items()
        ],
    )
    dimensions = LineChart(
        title="Dimensionality of the features",
        x_label="step",
        y_label="share of the width",
        series=[Series(name="all living features", x=steps, y=found.dimensionality)],
    )
    text = (
        "A crosscoder is one sparse dictionary for the activations of all snapshots at "
        f"{evolution.site}: the norm of a feature says how strong it is at each of them."
    )
    return [
        Text(text),
        Tiles(tiles),
        emergence,
        dimensions,
        Link(text="Explore every feature", file="explorer.html"),
    ]


def _tuning(tuning: Any) -> list[Text | LineChart | Table]:
    names = list(dict.fromkeys(cell.divergence for cell in tuning.cells))

    def chart(title: str, unit: str, what: str) -> LineChart:
        series = []
        for name in names:
            cells = sorted((c for c in tuning.cells if c.divergence == name), key=lambda c: c.rate)
            values = [getattr(c, what) for c in cells]
            series.append(Series(name=name, x=[c.rate for c in cells], y=values))
        return LineChart(title=title, x_label="learning rate", y_label=unit, series=series)

    text = (
        "The grown model learns running sums modulo 10 from demonstrations, with the divergence of "
        "the implicit-reward view at several rates, then from pairs by DPO. The score is the "
        f"probability of a right answer to a new problem, {tuning.before:.2g} before."
    )
    rows = [[c.divergence, c.rate, c.after_sft, c.after_dpo, c.kl] for c in tuning.cells]
    columns = ["divergence", "rate", "after fine-tuning", "after DPO", "KL from the grown model"]
    return [
        Text(text),
        chart("After fine-tuning", "P(right)", "after_sft"),
        chart("After DPO", "P(right)", "after_dpo"),
        Table(columns=columns, rows=rows),
    ]


def _loss_chart(name: str, steps: Sequence[int], domain: Learning) -> LineChart:
    return LineChart(
        title=f"Held-out text: {name}",
        x_label="step",
        y_label="nats a token",
        series=[Series(name="loss", x=steps, y=domain.loss)],
        lines=[
            HorizontalLine(name="unigrams", y=domain.unigram_loss),
            HorizontalLine(name="bigrams", y=domain.bigram_loss),
        ],
        note=f"{domain.tokens:,} tokens that no training document contains",
    )


def _distance_chart(name: str, steps: Sequence[int], domain: Learning) -> LineChart:
    return LineChart(
        title=f"Distance to n-grams: {name}",
        x_label="step",
        y_label="KL divergence, nats a token",
        series=[
            Series(name="KL(q ‖ p1)", x=steps, y=domain.kl_from_unigram),
            Series(name="KL(p2 ‖ q)", x=steps, y=domain.kl_of_bigram),
            Series(name="KL(q ‖ 0.9 p2 + 0.1 p1)", x=steps, y=domain.kl_from_bigram),
        ],
    )


def _samples(grown: Any) -> list[Text | Samples | Details]:
    steps = grown.phases.steps
    shown = sorted({0, len(steps) // 2, 3 * len(steps) // 4, len(steps) - 1})
    blocks: list[Text | Samples | Details] = [
        Text(
            "Each snapshot continues the same unseen text with the same random numbers, at "
            "temperature 0.8."
        )
    ]
    for name, domain in grown.phases.domains.items():
        items = [(f"step {step:,}", text) for step, text in zip(steps, domain.samples, strict=True)]
        first = [(f"{name}: the text to continue", domain.prompt)]
        blocks.append(Samples([*first, *(items[place] for place in shown)]))
        blocks.append(Details(summary=f"All snapshots on {name}", blocks=[Samples(items)]))
    return blocks


def _deliberation(found: Any) -> list[Text | Table]:
    if not found.rounds:
        return [Text("The held-out text has too few lower-case Latin words to ask for.")]
    first, last = 100 * found.rounds[0], 100 * found.rounds[-1]
    gap = _points(found.parallel_minus_sequential)
    return [
        Text(
            f"The last snapshot guesses the next word at {found.tasks} places of held-out text, "
            f"{found.samples} samples each; {found.unanswered:.0%} of the samples begin with no "
            "word. Intervals are 95 % over places, ties shared evenly."
        ),
        Table(
            columns=["choice", "right, %", "minus majority, points"],
            rows=[
                ["one sample", _points(found.one), "-"],
                *(
                    [name, _points(share), _points(found.minus_majority.get(name))]
                    for name, share in found.votes.items()
                ),
                ["any sample", _points(found.coverage), "-"],
            ],
        ),
        Text(
            f"Asked again and again with its own answers before it, it is right {first:.0f} % of "
            f"the time at first and {last:.0f} % in the end. At {found.budget} new tokens a place, "
            f"voting minus asking again is {gap} points."
        ),
    ]


def _points(values: list[float] | None) -> str:
    if values is None:
        return "-"
    mean, low, high = (100 * value for value in values)
    return f"{mean:.1f} [{low:.1f}, {high:.1f}]"


def _corpus_table(grown: Any) -> Table:
    rows = [
        [
            domain.name,
            f"{domain.weight:.1%}",
            *(domain.documents[split] for split in SPLITS),
            *(grown.tokens.count[domain.name][split] for split in SPLITS),
            f"{passes:.2f}",
            domain.duplicates,
            domain.leaks,
        ]
        for domain, passes in zip(grown.corpus.domains, grown.pretrained.passes, strict=True)
    ]
    return Table(
        columns=[
            "domain",
            "share",
            *(f"{split} documents" for split in SPLITS),
            *(f"{split} tokens" for split in SPLITS),
            "passes",
            "duplicates dropped",
            "leaking paragraphs dropped",
        ],
        rows=rows,
        caption="Split by document; held-out paragraphs that stand in a training document are out.",
    )


def _cost(grown: Any) -> list[Table]:
    stages = [[f"stage {name}", _duration(value)] for name, value in grown.seconds.items()]
    parts = [
        [f"of pre-training: {name}", _duration(value)]
        for name, value in grown.pretrained.seconds.items()
    ]
    return [Table(columns=["what", "time"], rows=[*stages, *parts])]


def _settings(config: dict[str, Any]) -> Table:
    sizes = dict(config["sizes"])
    parts = {"features": sizes.pop("evolution"), "tuning": sizes.pop("tuning")}
    nested = {f"{part}: {key}": v for part, values in parts.items() for key, v in values.items()}
    flat = {key: value for key, value in config.items() if key != "sizes"} | sizes | nested
    return Table(
        columns=["setting", "value"], rows=[[key, str(value)] for key, value in flat.items()]
    )


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s"
