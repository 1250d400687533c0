"""Paper 2412.14135: the search part of its roadmap on published logs and on small models.

The logs are those of papers that it surveys: Tree of Thoughts on the Game of 24 and verifiers on
GSM8K. Searches at equal tokens are in `_guided_searches`; the loop, in which search makes data that
learning absorbs, in `_search_loop`.
"""

import json
import time
from pathlib import Path
from typing import Any

import numpy as np

import meristem_testtime as tt
from meristem._rows import Row
from meristem.reproduce._data import (
    absent,
    correctness,
    data_file,
    read_json_zst,
    read_zst,
    sign_row,
)
from meristem.reproduce._guided_searches import search_rows
from meristem.reproduce._line_sums import make_worlds
from meristem.reproduce._search_loop import loop_rows

CHAINS = ("game24", "tot_game24_cot_sample100.json.zst")
TREES = ("game24", "tot_game24_tree_search.json.zst")
SOLUTIONS = ("gsm8k", "gsm8k_example_model_solutions.jsonl.zst")
RESIDUAL = 0.05  # of ln(-ln coverage): the law of repeated sampling holds below


def reproduce(out: Path, quick: bool, seed: int) -> list[Row]:
    """Return the rows on published logs, on searches at equal tokens, and on the loop."""
    worlds = make_worlds(quick, seed)
    return [*published_rows(seed), *search_rows(worlds, seed), *loop_rows(worlds, seed)]


def published_rows(seed: int) -> list[Row]:
    """Return the rows on coverage, tree search and verifiers; those without data say so."""
    return [*_coverage(seed), *_trees(seed), *_verifiers(seed)]


def _coverage(seed: int) -> list[Row]:
    claim = "repeated sampling: ln(-ln coverage) is linear in ln k, k = 1 to 100"
    path, source = data_file(*CHAINS), "section on repeated sampling; arXiv 2407.21787"
    if path is None:
        return [absent(claim, source, "/".join(CHAINS), seed)]
    start = time.perf_counter()
    rows = [[bool(info["r"]) for info in each["infos"]] for each in read_json_zst(path)]
    ks = list(range(1, 101))
    coverage = tt.pass_at_k(correctness(rows), ks)
    law = tt.fit_coverage(ks, coverage.mean(0).tolist())
    gain = tt.interval(coverage[:, -1], minus=coverage[:, 0], seed=seed)
    seconds = time.perf_counter() - start
    return [
        sign_row(
            "sampling 100 chains solves more puzzles than one", source, gain, 1,
            note="pass@100 minus pass@1 of GPT-4, over puzzles", seconds=seconds, seed=seed,
        ),
        Row(
            claim=claim, source=source, claimed=RESIDUAL, measured=law.max_residual, low=None,
            high=None, n=len(rows), seconds=seconds, seed=seed,
            verdict="reproduced" if law.max_residual < RESIDUAL else "refuted",
            note=f"largest residual; coverage = exp({law.a:.3g} k^{law.b:.3g})",
        ),
    ]  # fmt: skip


def _trees(seed: int) -> list[Row]:
    source = "section on tree search; arXiv 2305.10601"
    claims = (
        "breadth-first search keeps the logged candidates: stable order by value",
        "tree search solves more puzzles than as many samples of a chain as it returns",
    )
    trees, chains = data_file(*TREES), data_file(*CHAINS)
    if trees is None or chains is None:
        return [absent(claim, source, "/".join(TREES), seed) for claim in claims]
    start = time.perf_counter()
    logs = read_json_zst(trees)
    kept = [_is_stable_top(step) for log in logs for step in log["steps"]]
    single = correctness([[bool(i["r"]) for i in each["infos"]] for each in read_json_zst(chains)])
    widths = [len(log["infos"]) for log in logs]
    any_right = np.array([float(any(info["r"] for info in log["infos"])) for log in logs])
    coverage = tt.pass_at_k(single, sorted(set(widths)))
    column = {k: place for place, k in enumerate(sorted(set(widths)))}
    fair = np.array([coverage[row, column[k]] for row, k in enumerate(widths)])
    gain = tt.interval(any_right, minus=fair, seed=seed)
    seconds = time.perf_counter() - start
    return [
        Row(
            claim=claims[0], source=source, claimed=1.0, measured=float(np.mean(kept)), low=None,
            high=None, n=len(kept), verdict="reproduced" if all(kept) else "refuted",
            note="selections of GPT-4's search that our order repeats", seconds=seconds, seed=seed,
        ),
        sign_row(
            claims[1], source, gain, 1,
            note=f"any of the returned against pass@k, paired; tree {any_right.mean():.0%}. The "
            "search spends many more tokens: no comparison at equal cost",
            seconds=seconds, seed=seed,
        ),
    ]  # fmt: skip


def _is_stable_top(step: dict[str, Any]) -> bool:
    order = sorted(range(len(step["values"])), key=lambda i: -step["values"][i])
    kept = order[: len(step["select_new_ys"])]
    return [step["new_ys"][i] for i in kept] == step["select_new_ys"]


def _verifiers(seed: int) -> list[Row]:
    source = "section on reward-guided selection; arXiv 2110.14168"
    path = data_file(*SOLUTIONS)
    sizes = ("6b", "175b")
    claim = "a verifier's choice of 100 beats one sample of the {} model on GSM8K"
    if path is None:
        return [absent(claim.format(size), source, "/".join(SOLUTIONS), seed) for size in sizes]
    start = time.perf_counter()
    lines = [json.loads(line) for line in read_zst(path).splitlines()]
    rows: list[Row] = []
    for size in sizes:
        chosen, single = (
            np.array([float(line[f"{size}_{kind}"]["is_correct"]) for line in lines])
            for kind in ("verification", "finetuning")
        )
        gain = tt.interval(chosen, minus=single, seed=seed)
        rows.append(
            sign_row(
                claim.format(size.upper()), source, gain, 1,
                seconds=time.perf_counter() - start, seed=seed,
                note=f"{single.mean():.2%} to {chosen.mean():.2%}, paired by question",
            )
        )  # fmt: skip
    return rows
