"""Time the package against peers and plain references on the same work; prints a Markdown table.

python packages/testtime/benchmarks/compare.py [--rounds 5] [--deepconf PATH/deepconf/utils.py]

Results are compared before times. Rows without a peer show our time alone. DeepConf's functions are
loaded from its file, because its package imports vllm.
"""

import argparse
import asyncio
import importlib.util
import statistics
import subprocess
import sys
import time
import tracemalloc
from collections import deque
from itertools import combinations

import numpy as np

import meristem_testtime as tt


def main():
    """Run every row and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--deepconf", help="its utils.py, for the peer's own window functions")
    parser.add_argument("--questions", type=int, default=1000, help="of SMV@k at n = 16")
    options = parser.parse_args()
    rows = [
        exact_majority(options.rounds),
        subsets(options.rounds),
        sixteen(options.questions),
        *memory(),
        *votes(options.rounds),
        *windows(options.rounds, options.deepconf),
        kernel(),
        *imports(options.rounds),
    ]
    print("| work | ours, s | reference, s | ratio | agreement |\n|---|---|---|---|---|")
    for work, ours, peer, agreement in rows:
        ratio = "" if peer is None else f"{peer / ours:.0f}"
        shown = "" if peer is None else f"{peer:.3g}"
        print(f"| {work} | {ours:.3g} | {shown} | {ratio} | {agreement} |")


def interleaved(rounds, *calls):
    """Return the median time of each call, the calls taking turns."""
    times = [[] for _ in calls]
    for _ in range(rounds):
        for call, each in zip(calls, times, strict=True):
            start = time.perf_counter()
            call()
            each.append(time.perf_counter() - start)
    return [statistics.median(each) for each in times]


def random_traces(questions, n, classes, seed=0):
    """Return traces whose classes are skewed, so that plurality matters."""
    rng = np.random.default_rng(seed)
    answer = np.minimum(rng.geometric(0.25, (questions, n)) - 1, classes - 1).ravel()
    return tt.Traces(
        question=np.repeat(np.arange(questions), n),
        answer=answer,
        tokens=rng.integers(100, 9000, answer.size),
        correct=answer == 1,
        questions=tuple(map(str, range(questions))),
        scores={"r": rng.random(answer.size)},
    )


def exact_majority(rounds):
    """Time exact majority@k for all k; the reference draws 1,000 orders (and is not exact)."""
    traces = random_traces(1000, 64, 20)
    exact = tt.maj_at_k(traces, range(1, 65))
    few = traces.take(traces.question < 10)
    drawn = tt.at_k(few, tt.majority, range(1, 65), draws=1000)
    off = float(np.abs(drawn.values - exact[:10]).max())
    start = time.perf_counter()
    tt.at_k(few, tt.majority, range(1, 65), draws=1000)
    peer = 100 * (time.perf_counter() - start)
    (ours,) = interleaved(min(rounds, 3), lambda: tt.maj_at_k(traces, range(1, 65)))
    name = "exact maj@k, all k, n = 64, 1,000 questions; reference: 1,000 drawn orders, scaled"
    return name, ours, peer, f"largest difference {off:.3f} (Monte Carlo)"


def subsets(rounds):
    """Time the Shortest Majority Vote over all subsets of 16 against a loop, scaled."""
    traces = random_traces(3, 12, 6)
    ks = range(1, 13)

    def naive():
        result = np.zeros((3, 12))
        for q in range(3):
            rows = np.flatnonzero(traces.question == q)
            for k in ks:
                total = count = 0
                for chosen in combinations(rows.tolist(), k):
                    groups = {}
                    for i in chosen:
                        groups.setdefault(int(traces.answer[i]), []).append(int(traces.tokens[i]))
                    score = {a: len(t) / np.log(np.mean(t)) for a, t in groups.items()}
                    top = [a for a, s in score.items() if s >= max(score.values()) * (1 - 1e-12)]
                    total += top.count(1) / len(top)
                    count += 1
                result[q, k - 1] = total / count
        return result

    off = np.abs(naive() - tt.at_k(traces, tt.shortest_majority, ks).values).max()
    ours, peer = interleaved(
        min(rounds, 3), lambda: tt.at_k(traces, tt.shortest_majority, ks), naive
    )
    return "SMV@k, all subsets of 12, 3 questions; reference: loop", ours, peer, f"{off:.1g}"


def sixteen(questions):
    """Time SMV@k for all k over all subsets of 16 samples, once."""
    traces = random_traces(questions, 16, 6)
    start = time.perf_counter()
    found = tt.at_k(traces, tt.shortest_majority, range(1, 17))
    seconds = time.perf_counter() - start
    each = 1000 * seconds / questions
    name = f"SMV@k, all subsets of 16, {questions:,} questions: {each:.1f} ms a question"
    return name, seconds, None, "exact" if found.exact else "drawn"


def memory():
    """Give the most that Python allocates beyond the samples, and the time of that traced call."""
    many, few = random_traces(1000, 64, 20), random_traces(20, 16, 6)
    calls = {
        "maj@k, all k, n = 64, 1,000 questions": lambda: tt.maj_at_k(many, range(1, 65)),
        "SMV@k, all subsets of 16": lambda: tt.at_k(few, tt.shortest_majority, range(1, 17)),
    }
    for name, call in calls.items():
        call()  # what is made once for all calls is no part of one
        tracemalloc.start()
        start = time.perf_counter()
        call()
        seconds = time.perf_counter() - start
        most = tracemalloc.get_traced_memory()[1] / 2**20
        tracemalloc.stop()
        yield f"memory of {name}: {most:.0f} MiB at most", seconds, None, ""


def votes(rounds):
    """Time each vote over a million samples."""
    traces = random_traces(15_625, 64, 20)
    rules = {
        "majority": tt.majority,
        "SMV": tt.shortest_majority,
        "weighted": tt.weighted("r"),
        "best of": tt.best_of("r"),
        "Borda": tt.borda("r"),
        "short-3": tt.short_m(3),
    }
    times = interleaved(rounds, *(lambda r=r: tt.vote(traces, r) for r in rules.values()))
    for name, ours in zip(rules, times, strict=True):
        yield f"vote of 1,000,000 samples: {name}", ours, None, ""


def sliding(confidence, width):
    """Return the least window mean, each window summed anew."""
    return min(sum(confidence[i : i + width]) / width for i in range(len(confidence) - width + 1))


def running(confidence, width):
    """Return the least window mean by a running sum over a deque."""
    window, total, least = deque(), 0.0, float("inf")
    for value in confidence:
        window.append(value)
        total += value
        if len(window) > width:
            total -= window.popleft()
        if len(window) == width:
            least = min(least, total / width)
    return least


def windows(rounds, path):
    """Time window confidences against sliding and running sums, or DeepConf's own functions."""
    peers = {"loop of sums": sliding, "running sum": running}
    if path:
        spec = importlib.util.spec_from_file_location("deepconf_utils", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        peers = {
            "deepconf compute_least_grouped": lambda c, w: min(module.compute_least_grouped(c, w)),
            "deepconf calculate_bottom_window_confidence": lambda c, w: (
                module.calculate_bottom_window_confidence({"confs": c}, w, -1)
            ),
        }
    values = np.random.default_rng(0).gamma(4, 2, 16_384)
    as_list = values.tolist()
    for name, peer in peers.items():
        off = abs(peer(as_list, 2048) - tt.window_confidence(values).lowest)
        ours, theirs = interleaved(
            rounds, lambda: tt.window_confidence(values), lambda p=peer: p(as_list, 2048)
        )
        yield f"window confidence, 16,384 tokens; reference: {name}", ours, theirs, f"{off:.1g}"


def kernel():
    """Time the kernel alone: nodes a second over 200 questions."""

    class Constant(tt.FakeEngine):
        async def generate(self, requests, watches):
            each = tt.Completion(ids=(0,), logprobs=(0.0,), finish="stop")
            return [[each] * request.n for request in requests]

    engine = Constant(lambda ids: np.array([1.0, 0.0]), "a.")
    step = tt.Step(max_tokens=1, max_steps=10)
    start = time.perf_counter()
    found = asyncio.run(
        tt.search(engine, {f"q{i}": "a" for i in range(200)}, tt.beam(16, 4), step=step)
    )
    seconds = time.perf_counter() - start
    nodes = sum(len(each.nodes) for each in found)
    return f"kernel alone, beam 16, 10 steps: {nodes / seconds:,.0f} nodes/s", seconds, None, ""


def imports(rounds):
    """Time imports in fresh interpreters: ours, which defers all, that of every name, NumPy's."""
    for line in ("import meristem_testtime", "from meristem_testtime import *", "import numpy"):
        code = f"from time import perf_counter as now; s = now()\n{line}\nprint(now() - s)"
        command = [sys.executable, "-c", code]
        times = [
            float(subprocess.run(command, capture_output=True, check=True).stdout)
            for _ in range(rounds)
        ]
        yield line, statistics.median(times), None, ""


if __name__ == "__main__":
    main()
