"""The exact part of paper 2507.00018: finite bandits, both sides of the duality solved."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

import meristem_losses as ml
from meristem_core import stream

DIVERGENCES = {
    "chi-squared": ml.PEARSON_CHI2,
    "Hellinger": ml.SQUARED_HELLINGER,
    "Jensen-Shannon": ml.JENSEN_SHANNON,
    "reverse KL": ml.REVERSE_KL,
    "forward KL": ml.FORWARD_KL,
    "alpha 0.3": ml.alpha_divergence(0.3),
}
RESPONSES = 6
Side = Callable[[Tensor, Tensor, Tensor, ml.Divergence, float], Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bandits:
    """The largest deviations over all bandits, divergences and strengths."""

    gap: float  # of primal and dual optimum
    total_variation: float  # of its optimum from the expert, in log-probability
    most_kl: float  # KL(optimum || base) of any other divergence, less that of total variation
    rise: float  # of that KL where beta grows
    n: int


def solve_bandits(seed: int, *, bandits: int, betas: tuple[float, ...]) -> Bandits:
    """Solve random bandits with every divergence at growing strengths of the KL to the base."""
    found = [_solve(stream(seed, "bandit", index), betas) for index in range(bandits)]
    return Bandits(
        gap=max(f.gap for f in found),
        total_variation=max(f.total_variation for f in found),
        most_kl=max(f.most_kl for f in found),
        rise=max(f.rise for f in found),
        n=sum(f.n for f in found),
    )


def _solve(rng: np.random.Generator, betas: tuple[float, ...]) -> Bandits:
    expert, base = (torch.from_numpy(rng.normal(size=RESPONSES)).log_softmax(0) for _ in range(2))
    plain = float((expert.exp() * (expert - base)).sum())

    def optimum(side: Side, divergence: ml.Divergence, beta: float) -> tuple[Tensor, float]:
        return _minimise(lambda z: side(z, expert, base, divergence, beta), base)

    gaps, excess, rises = [0.0], [-np.inf], [-np.inf]
    for divergence in DIVERGENCES.values():
        before = np.inf
        for beta in betas:
            found, value = optimum(_loss, divergence, beta)
            gaps.append(abs(-beta * value - optimum(_primal, divergence, beta)[1]))
            logp = found.log_softmax(0)
            kl = float((logp.exp() * (logp - base)).sum())
            excess.append(kl - plain)
            rises.append(kl - before)
            before = kl
    free = [optimum(_loss, ml.TOTAL_VARIATION, beta)[0] for beta in betas]
    return Bandits(
        gap=max(gaps),
        total_variation=max(float((z.log_softmax(0) - expert).abs().max()) for z in free),
        most_kl=max(excess),
        rise=max(rises),
        n=len(betas) * len(DIVERGENCES),
    )


def _loss(
    z: Tensor, expert: Tensor, base: Tensor, divergence: ml.Divergence, beta: float
) -> Tensor:
    """Return the expected fine-tuning loss of one-token responses."""
    mask = torch.ones(RESPONSES, 1, dtype=torch.bool)
    every = torch.arange(RESPONSES)[:, None]
    policy, reference = (
        ml.token_logprobs_from_logits(x.expand(RESPONSES, 1, -1), every, mask=mask)
        for x in (z, base)
    )
    losses = ml.f_sft_loss(policy, reference, divergence, beta=beta)
    return (expert.exp() * losses.sum(1)).sum()


def _primal(
    z: Tensor, expert: Tensor, base: Tensor, divergence: ml.Divergence, beta: float
) -> Tensor:
    """Return D_f(policy || expert) + beta KL(policy || base)."""
    logp = z.log_softmax(0)
    distance = (expert.exp() * divergence.f((logp - expert).exp())).sum()
    return distance + beta * (logp.exp() * (logp - base)).sum()


def _minimise(loss: Callable[[Tensor], Tensor], start: Tensor) -> tuple[Tensor, float]:
    x = start.clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [x], max_iter=400, tolerance_grad=1e-11, tolerance_change=1e-15,
        line_search_fn="strong_wolfe",
    )  # fmt: skip

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss(x)
        value.backward()
        return value

    optimizer.step(closure)  # pyright: ignore[reportArgumentType] a tensor is what torch takes
    return x.detach(), float(loss(x.detach()))
