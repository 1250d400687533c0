"""From results to what the explorer shows: charts, columns and caveats."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from meristem_core.report import (
    Block,
    HorizontalLine,
    LineChart,
    Series,
    Table,
    Text,
)
from meristem_evolution._attribute import Shares, Task
from meristem_evolution._explorer import Column, Contexts, Explorer, Features
from meristem_evolution._measure import Measured

CAVEATS = """\
Decoder norms are trained quantities, not measurements: sparsity can shrink a norm while the \
activations still hold the feature. The table of snapshots says how often that happened; the \
overview shows how norms agree with how well each snapshot's activations tell where features fire.

Emergence is the first snapshot at which a norm reaches half of its largest value. The paper \
publishes no threshold; the table below compares three.

All snapshots start from one common row per feature, so that small rotations between early \
snapshots are small by construction.

Logarithmic axes exaggerate the beginning of training: every chart has both."""
WORSE = """\
Below 0 the dictionary is worse than the mean activation, so that its features say nothing of that \
snapshot: train on more tokens, or with less sparsity."""
TASKS = {
    "sva": "Subject-verb agreement",
    "ioi": "Indirect objects",
    "induction": "Induction",
}


def explorer_of(
    evolved: Any,
    arrays: Mapping[str, np.ndarray],
    effects: Mapping[str, np.ndarray],
    vocabulary: Sequence[bytes],
) -> Explorer:
    """Return the explorer of a finished run.

    Parameters
    ----------
    evolved
        The result, an `Evolved`.
    arrays, effects
        Numbers per feature of the stages "measure" and "attribute".
    vocabulary
        The bytes of every token.
    """
    found: Measured = evolved.measured
    turning = found.turning
    tasks = evolved.attributed.tasks
    return Explorer(
        title="Evolution of features",
        subtitle=f"{len(arrays['kind']):,} features over {len(found.steps)} snapshots of a run of "
        f"{found.steps[-1]:,} steps, read at {evolved.site}, trained on "
        f"{evolved.fitted.tokens:,} tokens",
        steps=found.steps,
        features=_features(arrays, effects, vocabulary),
        rotation=np.asarray(found.rotation),
        turning=(turning.step, turning.low, turning.high),
        overview=_overview(found),
        tasks=[block for task in tasks for block in _task(task, found.steps)],
        about=_about(evolved),
    )


def _features(
    arrays: Mapping[str, np.ndarray],
    effects: Mapping[str, np.ndarray],
    vocabulary: Sequence[bytes],
) -> Features:
    peak = np.maximum(arrays["peak"], 0)
    auc = arrays["auc"][np.arange(len(peak)), peak]
    length = np.where(arrays["context_length"] > 0, arrays["context_length"], np.nan)
    columns = [
        Column(
            name="needs",
            values=length,
            note="tokens of context that it needs for half of its strength, median",
        ),
        Column(name="AUC", values=auc, note="how well the peak's activations tell where it fires"),
        *(
            Column(
                name=name,
                values=values,
                note=f"effect on {TASKS.get(name, name)} at the last step",
            )
            for name, values in effects.items()
        ),
    ]
    named = ("norms", "threshold", "kind", "emergence", "peak", "lifetime", "frequency",
             "dimensionality", "cosines", "neighbours", "similarity")  # fmt: skip
    return Features(
        **{name: arrays[name] for name in named},
        contexts=Contexts(
            tokens=arrays["context_tokens"],
            activation=arrays["context_activation"],
            vocabulary=vocabulary,
        ),
        columns=columns,
    )


def _overview(found: Measured) -> list[Block]:
    steps, learning = found.steps, found.learning
    blocks: list[Block] = [
        _chart("Dimensionality", "share of the width", steps, {"all living features":
               found.dimensionality}, note="The sum of all features' dimensionalities."),
        _chart("Distance to n-grams", "KL divergence, nats a token", steps, {
            "KL(q ‖ p1)": learning.from_unigram, "KL(p2 ‖ q)": learning.of_bigram,
            "KL(q ‖ 0.9 p2 + 0.1 p1)": learning.from_bigram},
            note="q is the model's prediction, p1 unigrams and p2 bigrams of the training text."),
        _chart("Held-out loss", "nats a token", steps, {"loss": learning.loss}, lines={
            "unigrams": learning.unigram_loss, "bigrams": learning.bigram_loss}),
        _chart("Explained variance", "share", steps, {"all features": found.explained_variance},
               note=WORSE if min(found.explained_variance) < 0 else ""),
        _chart("Open features a token", "features", steps, {"L0": found.l0}),
    ]  # fmt: skip
    agreement = [(step, each) for step, each in zip(steps, found.norm_agreement, strict=True)
                 if each is not None]  # fmt: skip
    if agreement:
        series = Series(
            name="rank correlation",
            x=[step for step, _ in agreement],
            y=[each.estimate for _, each in agreement],
            low=[each.low for _, each in agreement],
            high=[each.high for _, each in agreement],
        )
        blocks.append(
            LineChart(
                title="Do norms measure presence?",
                x_label="step",
                y_label="rank correlation",
                series=[series],
                note="Of a feature's relative norm with how well the snapshot's activations "
                "separate the tokens at which it fires.",
            )
        )
    return blocks


def _task(task: Task, steps: Sequence[int]) -> list[Block]:
    name = TASKS.get(task.name, task.name)
    blocks: list[Block] = [
        Text(f"{name}: {task.pairs} pairs of prompts, {task.dropped} left out for their tokens. "
             f"The model chooses the right answer in {100 * task.accuracy[-1]:.0f} % of them at "
             "the last snapshot, where chance is 50 %."),
        _chart(f"{name} over training", "logits", steps,
               {"logit difference": task.difference, "carried by features": task.carried}),
        _chart(f"{name}: accuracy", "share", steps, {"right answers": task.accuracy},
               lines={"chance": 0.5}),
    ]  # fmt: skip
    for title, shares in (("restoring", task.restore), ("ablating", task.ablate)):
        if shares is not None:
            blocks.append(_curve(f"{name}: {title} the strongest features", shares))
    return blocks


def _curve(title: str, shares: Shares) -> LineChart:
    middle = [(low + high) / 2 for low, high in zip(shares.low, shares.high, strict=True)]
    return LineChart(
        title=title,
        x_label="features",
        y_label="faithfulness",
        series=[
            Series(name="by attribution", x=shares.features, y=shares.faithfulness),
            Series(name="random features that fire as often, 95 %", x=shares.features, y=middle,
                   low=shares.low, high=shares.high),
        ],
        note="0: all features as on the other prompt; 1: all as on this one. On pairs that did not "
        "rank the features.",
    )  # fmt: skip


def _chart(
    title: str,
    y_label: str,
    steps: Sequence[int],
    series: Mapping[str, Sequence[float]],
    *,
    lines: Mapping[str, float] | None = None,
    note: str = "",
) -> LineChart:
    return LineChart(
        title=title,
        x_label="step",
        y_label=y_label,
        series=[Series(name=name, x=steps, y=values) for name, values in series.items()],
        lines=[HorizontalLine(name=name, y=value) for name, value in (lines or {}).items()],
        note=note,
    )


def _about(evolved: Any) -> list[Block]:
    found: Measured = evolved.measured
    kinds = [[float(h), *counts.values()] for h, counts in found.kinds.items()]
    names = list(next(iter(found.kinds.values())))
    rows = [
        [step, ev, l0, share]
        for step, ev, l0, share in zip(
            found.steps, found.explained_variance, found.l0, found.shrunk, strict=True
        )
    ]
    config = {**evolved.config, "site": evolved.site}
    settings = [[name, _setting(value)] for name, value in config.items()]
    seconds = [[name, round(value, 1)] for name, value in evolved.seconds.items()]
    without = [
        Text(f"{TASKS.get(name, name)}: not tried, {why}. --tasks adds pairs of your own.")
        for name, why in evolved.attributed.without.items()
    ]
    return [
        *(Text(each) for each in CAVEATS.split("\n\n")),
        *without,
        Table(columns=["threshold", *names], rows=kinds, caption="Kinds at three thresholds"),
        Table(columns=["step", "explained variance", "open features a token", "shrunk"], rows=rows,
              caption="Snapshots; shrunk: share of living features whose norm is below a tenth of "
              "its largest though more than half of the feature is in the activations."),
        Table(columns=["setting", "value"], rows=settings, caption="Settings"),
        Table(columns=["stage", "seconds"], rows=seconds, caption="Time"),
    ]  # fmt: skip


def _setting(value: object) -> str:
    """Return a setting as a reader would write it, a list as its parts."""
    parts = value if isinstance(value, (tuple, list)) else [value]
    return ", ".join(map(str, parts)) or "none"
