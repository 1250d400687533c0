"""Time and peak memory of losses from hidden states, forward and backward, against the peers.

    python benchmarks/head.py                                                  # the README's tables
    uv run --with cut-cross-entropy python benchmarks/head.py --with-cce       # with Apple's
    python benchmarks/head.py --tables buffers                                 # one of them
    python benchmarks/head.py --tokens 256 --vocabulary 2048 --rounds 1        # a smoke run

Ways alternate within a round; ratios are of one round. Peak memory is that of tensors alive, by the
profiler's allocation record: above the inputs, with the gradients that every way ends with, and
above inputs and gradients. Values and gradients are compared first.
"""

import argparse
import datetime
import importlib.metadata
import os
import statistics
import time

os.environ["KINETO_LOG_LEVEL"] = "99"

import torch
from _ways import Way, buffer_ways, distillation_ways, dpo_ways, nll_ways
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from meristem_losses import Teacher


def step(way: Way, hidden: Tensor, weight: Tensor) -> list[Tensor]:
    """Return the loss and its gradients."""
    loss = way(hidden, weight)
    return [loss.detach(), *torch.autograd.grad(loss, (hidden, weight))]


def peak_bytes(way: Way, hidden: Tensor, weight: Tensor) -> int:
    """Return the highest running sum of CPU allocations: what is alive besides the inputs."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        step(way, hidden, weight)
    total = highest = 0
    for event in record.profiler.kineto_results.events():
        if event.name() == "[memory]":
            total += event.nbytes()
            highest = max(highest, total)
    return highest


def compare(title: str, ways: dict[str, Way], hidden: Tensor, weight: Tensor, rounds: int) -> None:
    """Compare results, then print seconds and memory as ratios to the plain path."""
    expected = step(ways["plain"], hidden, weight)
    for name, way in ways.items():
        for x, y in zip(step(way, hidden, weight), expected, strict=True):
            torch.testing.assert_close(
                x, y, rtol=2e-4, atol=2e-6, msg=lambda m, n=name: f"{n}: {m}"
            )
    del expected, x, y
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            start = time.perf_counter()
            step(way, hidden, weight)
            seconds[name].append(time.perf_counter() - start)
    memory = {name: peak_bytes(way, hidden, weight) for name, way in ways.items()}
    gradients = hidden.nbytes + weight.nbytes
    print(f"\n{title}; gradients {gradients / 2**20:.0f} MiB\n")
    print(
        "| way | seconds | time / plain (range) | MiB | plain / it | above gradients | plain / it |"
    )
    print("|---|---|---|---|---|---|---|")
    for name, found in seconds.items():
        ratios = [x / y for x, y in zip(found, seconds["plain"], strict=True)]
        span = f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"
        cells = [name, f"{statistics.median(found):.2f}", span]
        for less in (0, gradients):
            size = memory[name] - less
            cells += [f"{size / 2**20:.0f}", f"{(memory['plain'] - less) / max(size, 1):.1f}"]
        print("| " + " | ".join(cells) + " |", flush=True)


def problem(rows: int, positions: int, vocabulary: int, width: int) -> tuple[Tensor, ...]:
    """Return hidden states, a head, targets."""
    g = torch.Generator().manual_seed(0)
    hidden = torch.randn(rows, positions, width, generator=g).requires_grad_()
    weight = (torch.randn(vocabulary, width, generator=g) / width**0.5).requires_grad_()
    return hidden, weight, torch.randint(0, vocabulary, (rows, positions), generator=g)


def distillation_table(n: int, v: int, d: int, rounds: int) -> None:
    """Print a teacher of twice the width."""
    hidden, weight, _ = problem(1, n, v, d)
    ref_hidden, ref_weight, _ = problem(1, n, v, 2 * d)
    teacher = Teacher(hidden=ref_hidden.detach(), weight=ref_weight.detach())
    title = f"Jensen-Shannon from a teacher of width {2 * d}, {n} tokens x {v} x {d}"
    compare(title, distillation_ways(teacher), hidden, weight, rounds)


def parts_table(n: int, v: int, d: int, rounds: int) -> None:
    """Print where the time of a likelihood goes."""
    hidden, weight, targets = problem(1, n, v, d)
    every = nll_ways(targets, torch.ones_like(targets, dtype=torch.bool), False)
    ways = {name: every[name] for name in (*NARROW, "torch fused, chunk 256") if name in every}
    print(f"\nWhere the time goes, NLL, {n} tokens x {v} x {d}, median of {rounds}\n")
    print("| way | matrix products, s | how many | everything else, s |")
    print("|---|---|---|---|")
    for name, way in ways.items():
        found = []
        for _ in range(rounds + 1):  # the first warms up
            with profile(activities=[ProfilerActivity.CPU]) as record:
                step(way, hidden, weight)
            events = record.key_averages()
            products = [e for e in events if e.key in ("aten::mm", "aten::addmm", "aten::addmm_")]
            found.append((
                sum(e.self_cpu_time_total for e in products) / 1e6,
                sum(e.count for e in products),
                sum(e.self_cpu_time_total for e in events) / 1e6,
            ))  # fmt: skip
        inside, count, whole = (statistics.median(x) for x in zip(*found[1:], strict=True))
        print(f"| {name} | {inside:.2f} | {count:.0f} | {whole - inside:.2f} |", flush=True)


def main() -> None:
    """Print every table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--vocabulary", type=int, default=32768)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=TABLES)
    parser.add_argument("--with-cce", action="store_true")
    a = parser.parse_args()
    n, v, d = a.tokens, a.vocabulary, a.width
    versions = [f"{name} {importlib.metadata.version(name)}" for name in ("torch", *installed())]
    print(f"{datetime.date.today()}, {', '.join(versions)}, {torch.get_num_threads()} threads")

    if "nll" in a.tables:
        nll_tables(n, v, d, a.rounds, cce=a.with_cce)
    if "growth" in a.tables:
        growth_tables(n, v, d, a.rounds)
    if "buffers" in a.tables:
        hidden, weight, targets = problem(1, n, v, d)
        whole = torch.ones_like(targets, dtype=torch.bool)
        ways = {"plain": nll_ways(targets, whole, False)["plain"], **buffer_ways(targets)}
        compare("NLL, size of the buffer", ways, hidden, weight, a.rounds)
    if "dpo" in a.tables:
        dpo_table(n, v, d, a.rounds)
    if "distillation" in a.tables:
        distillation_table(n, v, d, a.rounds)
    if "parts" in a.tables:
        parts_table(n, v, d, a.rounds)


def nll_tables(n: int, v: int, d: int, rounds: int, *, cce: bool) -> None:
    """Print likelihood against every peer, and with half of the tokens masked."""
    hidden, weight, targets = problem(1, n, v, d)
    whole = torch.ones_like(targets, dtype=torch.bool)
    compare(f"NLL, {n} tokens x {v} x {d}", nll_ways(targets, whole, cce), hidden, weight, rounds)
    half = torch.arange(n)[None] >= n // 2
    some = {k: w for k, w in nll_ways(targets, half, False).items() if k in NARROW}
    compare("NLL, half of the tokens masked", some, hidden, weight, rounds)


def growth_tables(n: int, v: int, d: int, rounds: int) -> None:
    """Print likelihood at half of one size after the other."""
    for title, (n_, v_, d_) in {
        "half the tokens": (n // 2, v, d), "half the vocabulary": (n, v // 2, d),
        "half the width": (n, v, d // 2),
    }.items():  # fmt: skip
        hidden, weight, targets = problem(1, n_, v_, d_)
        whole = torch.ones_like(targets, dtype=torch.bool)
        some = {k: w for k, w in nll_ways(targets, whole, False).items() if k in NARROW}
        compare(f"NLL, {title}: {n_} x {v_} x {d_}", some, hidden, weight, rounds)


def dpo_table(n: int, v: int, d: int, rounds: int) -> None:
    """Print four pairs."""
    hidden, weight, targets = problem(8, n // 8, v, d)
    g = torch.Generator().manual_seed(1)
    shift = 0.1 * torch.randn(hidden.shape, generator=g)
    reference = ((hidden + shift).detach(), weight.detach())
    whole = torch.ones_like(targets, dtype=torch.bool)
    ways = dpo_ways(targets, whole, reference)
    compare(f"DPO, 4 pairs of 2 x {n // 8} tokens", ways, hidden, weight, rounds)


NARROW = ("plain", "one pass", "recompute")
TABLES = ("nll", "growth", "buffers", "dpo", "distillation", "parts")


def installed() -> list[str]:
    """Return the peers that are installed."""
    names = ("trl", "liger-kernel", "cut-cross-entropy")
    names_found = (d.metadata["Name"] for d in importlib.metadata.distributions())
    found = {name.lower().replace("_", "-") for name in names_found}
    return [name for name in names if name in found]


if __name__ == "__main__":
    main()
