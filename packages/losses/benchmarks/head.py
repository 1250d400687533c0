"""Time and peak memory of negative log-likelihood from hidden states, forward and backward.

    python benchmarks/head.py --tokens 4096 --vocabulary 32768 --width 512

Peak memory is that of tensors alive above inputs, by the profiler's allocation record.
"""

import argparse
import statistics
import time

import torch
from torch.nn.functional import cross_entropy, linear
from torch.profiler import ProfilerActivity, profile

from meristem_losses import fused_loss, nll_loss, token_logprobs


def plain(hidden, weight, targets):
    """Return the mean loss by way of the whole logits."""
    return cross_entropy(linear(hidden[0], weight), targets[0])


def recompute(hidden, weight, targets):
    """Return the mean loss by the recomputing schedule."""
    return nll_loss(token_logprobs(hidden, weight, targets)).mean()


def one_pass(hidden, weight, targets):
    """Return the mean loss by the one-pass schedule."""
    n = targets.numel()
    return fused_loss(
        hidden, weight, targets, loss=lambda stats, _: nll_loss(stats).sum() / n
    ).value


def torch_fused(hidden, weight, targets):
    """Return the mean loss by torch's own fused operation."""
    return torch.nn.functional.linear_cross_entropy(hidden[0], weight, targets[0])


def peak_bytes(run):
    """Return the highest running sum of CPU allocations during a call."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        run()
    total = highest = 0
    for event in record.profiler.kineto_results.events():
        if event.name() == "[memory]":
            total += event.nbytes()
            highest = max(highest, total)
    return highest


def main():
    """Compare results, then print times and memory as ratios to the plain path."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--vocabulary", type=int, default=32768)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    a = parser.parse_args()
    g = torch.Generator().manual_seed(0)
    hidden = torch.randn(1, a.tokens, a.width, generator=g).requires_grad_()
    weight = (torch.randn(a.vocabulary, a.width, generator=g) / a.width**0.5).requires_grad_()
    targets = torch.randint(0, a.vocabulary, (1, a.tokens), generator=g)
    ways = {"plain": plain, "recompute": recompute, "one pass": one_pass}
    if hasattr(torch.nn.functional, "linear_cross_entropy"):
        ways["torch fused"] = torch_fused

    def step(way):
        loss = way(hidden, weight, targets)
        return [loss.detach(), *torch.autograd.grad(loss, (hidden, weight))]

    expected = step(plain)
    for way in ways.values():
        for x, y in zip(step(way), expected, strict=True):
            torch.testing.assert_close(x, y, rtol=1e-4, atol=1e-7)
    del expected, x, y
    seconds = {name: [] for name in ways}
    for _ in range(a.rounds):
        for name, way in ways.items():
            start = time.perf_counter()
            step(way)
            seconds[name].append(time.perf_counter() - start)
    memory = {name: peak_bytes(lambda way=way: step(way)) for name, way in ways.items()}
    print(f"{a.tokens} x {a.vocabulary} x {a.width}, torch {torch.__version__}\n")
    print("| way | seconds | time / plain (range) | peak MiB | memory / plain |")
    print("|---|---|---|---|---|")
    for name, found in seconds.items():
        ratios = [x / y for x, y in zip(found, seconds["plain"], strict=True)]
        span = f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"
        size = f"{memory[name] / 2**20:.0f} | {memory[name] / memory['plain']:.3f}"
        print(f"| {name} | {statistics.median(found):.2f} | {span} | {size} |")


if __name__ == "__main__":
    main()
