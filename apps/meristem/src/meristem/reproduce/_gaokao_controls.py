"""Controls of GAOKAO-Eval: humans, real labels, reasoning tokens, leaderboards."""

import csv
import gzip
from pathlib import Path

import numpy as np

from meristem._rows import Row, Verdict
from meristem.reproduce._gaokao_scores import (
    CODE,
    ESSAYS,
    LEADERBOARD,
    SCORES,
    TRACES,
    Settings,
    partly_solved,
    read_essays,
    read_gaokao,
    row_of,
)
from meristem_core import bootstrap_interval, stream
from meristem_core.command import UsageError
from meristem_rasch import (
    CML,
    DataError,
    Responses,
    difficulty_alignment,
    item_fit,
    length_as_difficulty,
    overdispersion,
    read_table,
)


def human_variance(settings: Settings) -> Row:
    """Reproduced as special to language models: humans' ratio lies surely below; else refuted."""
    essays = read_essays(settings.data / ESSAYS)
    top = np.array(essays[0][3]) * 0 + max(max(grades) for *_, grades in essays)
    students = sorted({student for student, *_ in essays})
    kept = stream(settings.seed, "essays").permutation(len(students))[:200]
    place = {students[k]: row for row, k in enumerate(kept)}
    kinds = sorted({kind for _, kind, *_ in essays})
    total, times = np.zeros((200, len(kinds), 5)), np.zeros((200, len(kinds), 1))
    for student, kind, _, grades in essays:
        if student in place:
            total[place[student], kinds.index(kind)] += grades
            times[place[student], kinds.index(kind)] += 1
    with np.errstate(invalid="ignore"):
        rates = (total / times / top).reshape(200, -1)
    rates = rates[~np.isnan(rates).all(axis=1)]
    human = overdispersion(rates, weight=int(top[0]), bootstrap=10, seed=settings.seed).held_out
    gaokao = read_gaokao(settings.data / SCORES)
    graded = partly_solved(gaokao)
    model = overdispersion(
        gaokao.rates[:, graded],
        weight=np.round(gaokao.points[graded]),
        bootstrap=10,
        seed=settings.seed,
    ).held_out
    verdict: Verdict = "reproduced" if model.low > human.high else "refuted"
    return row_of(
        "More than in human work graded the same way",
        "control",
        f"below {model.low:.2f}",
        (human.ratio, human.low, human.high),
        rates.size,
        verdict,
        f"200 students, essays on 5 criteria; models {model.ratio:.2f} [{model.low:.2f}, "
        f"{model.high:.2f}]; criteria of one essay carry different points than exam questions",
    )


def real_labels(settings: Settings) -> Row:
    """Reproduced: real labels explain nothing (R^2 < 0.05); refuted: surely more than 0.2."""
    try:
        table = read_table(settings.data / CODE)
    except DataError as error:
        raise UsageError(f"MERISTEM_DATA: {error}") from error
    systems, items = (sorted(set(table.text(name))) for name in ("model", "question_id"))
    row, column = ({name: k for k, name in enumerate(names)} for names in (systems, items))
    rates = np.full((len(systems), len(items)), np.nan)
    level = np.full(len(items), np.nan)
    ranks = {"easy": 1.0, "medium": 2.0, "hard": 3.0}
    cells = zip(table.text("model"), table.text("question_id"), table.text("difficulty"),
                table.numbers("pass@1"), strict=True)  # fmt: skip
    for system, item, word, value in cells:
        rates[row[system], column[item]] = value / 100
        level[column[item]] = ranks[word]
    found = difficulty_alignment(
        rates, level, weight=10, bootstrap=settings.draws, seed=settings.seed
    ).rung("pooled")
    verdict: Verdict = "partly"
    if found.high < 0.05:
        verdict = "reproduced"
    elif found.low > 0.2:
        verdict = "refuted"
    return row_of(
        "Human difficulty labels do not predict scores of language models",
        "control, code",
        "R2 about 0",
        (found.r2, found.low, found.high),
        rates.size,
        verdict,
        f"{len(systems)} systems on {len(items)} programming problems labelled easy, medium, hard; "
        "95 % over items",
    )


def reasoning_length(settings: Settings) -> Row:
    """Reproduced: R^2 surely above 0 and others' length counts; partly: own only; else refuted."""
    tokens, scores, answered = _traces(settings.data / TRACES)
    full = length_as_difficulty(scores, tokens, weight=8, seed=settings.seed)
    clean = length_as_difficulty(scores, tokens, weight=8, answered=answered, seed=settings.seed)
    rung = clean.alignment.rung("system")
    others = np.mean([each.high < 0 for each in clean.others])
    verdict: Verdict = "refuted"
    if rung.low > 0 and (rung.slope or 0) > 0:
        verdict = "reproduced" if others > 0.5 else "partly"
    return row_of(
        "Reasoning tokens measure difficulty",
        "Sec. 4, Fig. 11",
        0.1019,
        (rung.r2, rung.low, rung.high),
        clean.cells,
        verdict,
        f"8 reasoning models on AIME and GPQA, unanswered samples left out (with them "
        f"{full.alignment.rung('system').r2:.2f}); the other models' length counts for "
        f"{others:.0%} of the models; 95 % over items",
    )


def _traces(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return mean tokens, mean score and whether most samples answered, models x questions."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    models = sorted({r["model"] for r in rows})
    items = sorted({(r["dataset"], r["question"]) for r in rows})
    row = {name: k for k, name in enumerate(models)}
    column = {name: k for k, name in enumerate(items)}
    total = np.zeros((4, len(models), len(items)))
    for r in rows:
        empty = float(r["no_answer"])
        value = (float(r["tokens"]), float(r["correct"]), empty, 1.0)
        total[:, row[r["model"]], column[r["dataset"], r["question"]]] += value
    with np.errstate(invalid="ignore"):
        mean = total[:3] / total[3]
    return np.where(total[3] > 0, mean[0], 0.0), mean[1], mean[2] < 0.5


def leaderboard(settings: Settings) -> Row:
    """Reproduced: surely more than a fifth of the items misfit one Rasch scale of leaderboards."""
    stored = np.load(settings.data / LEADERBOARD)
    table = stored["responses"].astype(float)
    if settings.quick:
        table = table[stream(settings.seed, "systems").permutation(len(table))[:1500]]
    varied = np.abs(table.mean(axis=0) - 0.5) < 0.495  # nearly constant items have no estimate
    data = Responses.from_wide(table[:, varied])
    fit = item_fit(CML().fit(data), data)
    bad = ((fit.outfit < 0.7) | (fit.outfit > 1.3)).astype(float)
    found = bootstrap_interval(
        lambda rows: float(bad[rows].mean()), len(bad), rng=stream(settings.seed, "items")
    )
    return row_of(
        "Language models do not fit one Rasch scale",
        "control, leaderboard",
        "misfit",
        (found.estimate, found.low, found.high),
        data.scores.size,
        "reproduced" if found.low > 0.2 else "partly" if found.estimate > 0.05 else "refuted",
        f"share of {len(bad)} TruthfulQA items with outfit outside 0.7 to 1.3, {len(table):,} "
        "systems, exact conditional likelihood; 95 % over items",
    )
