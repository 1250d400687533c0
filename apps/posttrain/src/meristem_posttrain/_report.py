"""The report of a run: curves, implicit rewards, length, divergence from the reference."""

from collections.abc import Sequence
from typing import Any

from meristem_core.report import (
    LineChart,
    Page,
    Samples,
    Section,
    Series,
    Table,
    Text,
    Tile,
    Tiles,
    render,
)

REWARDS = {
    "sft": {"reward": "β (log p − log p_ref)"},
    "dpo": {"reward_chosen": "chosen", "reward_rejected": "rejected", "margin": "margin"},
    "kto": {"reward_desirable": "desirable", "reward_undesirable": "undesirable"},
    "rank": {"reward_best": "best", "reward_worst": "worst", "margin": "margin"},
}
KINDS = {
    "sft": "Fine-tuning", "dpo": "Preference tuning", "kto": "Tuning on labels",
    "rank": "Tuning on rankings",
}  # fmt: skip
WANTED = {
    "sft": "responses", "dpo": "chosen responses", "kto": "desirable responses",
    "rank": "best responses",
}  # fmt: skip
NAMES = {"nll": "NLL", "kl": "KL", "value": "soft value"}  # of columns; others as they are
PREFERRED = {"dpo": "chosen above rejected", "rank": "better above worse"}


def render_report(
    result: Any, training: Sequence[dict[str, Any]], cost: dict[str, Any], prompt: str
) -> str:
    """Return the report as one HTML file.

    Parameters
    ----------
    result
        The finished run, a `Posttrained`.
    training
        The records of `metrics.jsonl`.
    cost
        Seconds and peak memory of the session that finished the run.
    prompt
        The prompt of the samples.
    """
    config = result.config
    return render(
        Page(
            title=f"{KINDS[config['stage']]} by {config['loss']}",
            subtitle=f"{_trained(result)}, {result.steps:,} steps of {config['batch']}, "
            f"{result.examples:,} examples, {result.held_out:,} held out, seed {config['seed']}",
            sections=[
                Section(title="In short", blocks=[_tiles(result, cost)]),
                Section(title="Loss", blocks=_loss(result, training)),
                Section(title="Implicit rewards", blocks=_rewards(result)),
                Section(title="Drift", blocks=_drift(result)),
                Section(title="What it answers", blocks=_samples(result, prompt)),
                Section(title="Evaluations", blocks=[_table(result)]),
                Section(title="Settings", blocks=[_settings(config)]),
            ],
        )
    )


def _trained(result: Any) -> str:
    if result.adapter is None:
        return f"all {result.parameters:,} parameters"
    layers = sum(result.adapter["layers"].values())
    return (
        f"{result.trained_parameters:,} of {result.parameters:,} parameters (LoRA of rank "
        f"{result.adapter['rank']} on {layers:,} linear layers)"
    )


def _tiles(result: Any, cost: dict[str, Any]) -> Tiles:
    first, last = result.evaluations[0], result.evaluations[-1]
    tiles = [
        Tile(
            label=f"NLL of {WANTED[result.config['stage']]}", value=f"{last['nll']:.3f}",
            note=f"nats a token, held out, {first['nll']:.3f} before",
        ),
    ]  # fmt: skip
    if "accuracy" in last:
        note = f"{PREFERRED[result.config['stage']]}, {first['accuracy']:.0%} before"
        tiles.append(Tile(label="accuracy", value=f"{last['accuracy']:.0%}", note=note))
    if "kl" in last:
        tiles.append(Tile(label="KL from the reference", value=f"{last['kl']:.3g}",
                          note="nats a token, held-out prefixes"))  # fmt: skip
    return Tiles(
        [
            *tiles,
            Tile(label="time", value=f"{cost['seconds']:.0f} s", note="last session"),
            Tile(label="peak memory", value=f"{cost['peak_memory'] / 2**30:.2f} GiB",
                 note="resident, one process"),
        ]
    )  # fmt: skip


def _loss(result: Any, training: Sequence[dict[str, Any]]) -> list[Text | LineChart]:
    charts = [
        _chart(f"Training: {result.config['loss']}", "loss", training, {"loss": "loss"}),
        _chart(
            f"Held-out {WANTED[result.config['stage']]}",
            "nats a token",
            result.evaluations,
            {"nll": "NLL"},
        ),
        _chart("Gradient norm", "before clipping at 1", training, {"gradient_norm": "norm"}),
    ]
    return [chart for chart in charts if chart is not None]


def _rewards(result: Any) -> list[Text | LineChart]:
    stage = result.config["stage"]
    text = (
        "The reward that the logits already contain: beta times the log-ratio of a response to "
        "the reference, summed over its tokens; means over the held-out examples."
    )
    charts = [_chart("Rewards", "nats x beta", result.evaluations, REWARDS[stage])]
    if stage == "sft":  # far smaller than the rewards
        value = {"value": "V_0"}
        charts.append(_chart("Soft value of prompts", "nats x beta", result.evaluations, value))
    if stage in PREFERRED:
        accuracy = {"accuracy": PREFERRED[stage]}
        charts.append(_chart("Accuracy", "fraction of pairs", result.evaluations, accuracy))
    return [Text(text), *(chart for chart in charts if chart is not None)]


def _drift(result: Any) -> list[Text | LineChart]:
    charts = [
        _chart("KL from the reference", "nats a token", result.evaluations, {"kl": "KL"}),
        _chart(
            "Length of greedy answers",
            f"tokens, cut at {result.config['sample_tokens']}",
            result.evaluations,
            {"length": "tokens"},
        ),
    ]
    return [chart for chart in charts if chart is not None]


def _samples(result: Any, prompt: str) -> list[Text | Samples]:
    found = [e for e in result.evaluations if "sample" in e]
    if not found:
        return [Text("No prompts were answered.")]
    items = [(f"step {e['step']:,}", e["sample"]) for e in (found[0], found[-1])]
    return [Samples([("prompt", prompt.strip("\n")), *items])]


def _table(result: Any) -> Table:
    names: list[str] = [k for k in result.evaluations[-1] if k not in ("step", "sample")]
    rows = [[e["step"], *(e.get(name) for name in names)] for e in result.evaluations]
    columns = [NAMES.get(name, name.replace("_", " ")) for name in names]
    return Table(columns=["step", *columns], rows=rows)


def _settings(config: dict[str, Any]) -> Table:
    return Table(
        columns=["setting", "value"],
        rows=[
            [key, _shown(value)]
            for key, value in config.items()
            if config["lora"] or not key.startswith("lora_")
        ],
    )


def _shown(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "-"
    return "-" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _chart(
    title: str, unit: str, records: Sequence[dict[str, Any]], lines: dict[str, str]
) -> LineChart | None:
    series = [
        Series(name=label, x=[r["step"] for r in records], y=[r[key] for r in records])
        for key, label in lines.items()
        if records and all(key in r for r in records)  # no held-out response may have a label
    ]
    if not series:
        return None
    return LineChart(title=title, x_label="step", y_label=unit, series=series, first="linear")
