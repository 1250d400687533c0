"""Entropy of a small policy under reinforcement learning, with and without the KL-Cov penalty.

The objective of Intern-S1 (2508.15763 5.2.3, after a summary): likelihood of right answers, -r A of
wrong ones, leave-one-out advantages, no clipping. A policy samples eight answers to each of sixteen
problems, running sums of one to three digits that are not 0, then takes four steps on quarters of
them.

Rule, written before these runs, rate and rounds having been chosen on one other seed: reproduced
where the entropy at the end with KL-Cov, at the parameters that Intern-S1 states, is at least twice
that without, interval over seeds, and the interval of the difference in P(right) does not lie below
0; partly where only the entropy is.
"""

import copy
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from meristem._rows import Row, Verdict
from meristem._running_sums import Digits, draw_problems
from meristem.reproduce._implicit_reward_cells import ALPHABET, TERMS, pretrained
from meristem_core import Interval, Journal, bootstrap_interval, derive_seed, stream
from meristem_core.command import Progress
from meristem_losses import (
    AdaptiveEntropy,
    TokenStats,
    entropy_bonus,
    kl_cov_penalty,
    leave_one_out_advantages,
    mean_over_tokens,
    oreal_loss,
    ppo_clip_loss,
    token_logprobs,
)
from meristem_losses.hf import head_options, hidden_states

PROBLEMS, SAMPLES, UPDATES, RATE = 16, 8, 4, 3e-4
ROUNDS, SEEDS = {True: 30, False: 90}, {True: 2, False: 3}
TARGET = 0.2  # nats, of the controlled bonus
HELD_OUT = 512

Loss = Callable[[TokenStats, Tensor, Tensor, Tensor], Tensor]


def _intern(stats: TokenStats, old: Tensor, advantages: Tensor, bonus: Tensor) -> Tensor:
    return oreal_loss(stats, old, advantages, kl_weight=0.0)


def _many_weakly(stats: TokenStats, old: Tensor, advantages: Tensor, bonus: Tensor) -> Tensor:
    penalty = kl_cov_penalty(stats, old, advantages, top_frac=0.2, weight=0.01)
    return oreal_loss(stats, old, advantages, kl_weight=0.0) + penalty


def _few_strongly(stats: TokenStats, old: Tensor, advantages: Tensor, bonus: Tensor) -> Tensor:
    penalty = kl_cov_penalty(stats, old, advantages, top_frac=0.002, weight=1.0)
    return oreal_loss(stats, old, advantages, kl_weight=0.0) + penalty


def _many_strongly(stats: TokenStats, old: Tensor, advantages: Tensor, bonus: Tensor) -> Tensor:
    penalty = kl_cov_penalty(stats, old, advantages, top_frac=0.2, weight=1.0)
    return oreal_loss(stats, old, advantages, kl_weight=0.0) + penalty


def _clipped(stats: TokenStats, old: Tensor, advantages: Tensor, bonus: Tensor) -> Tensor:
    return ppo_clip_loss(stats, old, advantages)


def _with_bonus(stats: TokenStats, old: Tensor, advantages: Tensor, bonus: Tensor) -> Tensor:
    return ppo_clip_loss(stats, old, advantages) + entropy_bonus(stats, float(bonus))


PLAIN, STATED, AUTHORS = "without", "KL-Cov 0.2, weight 0.01", "KL-Cov 0.002, weight 1"
ARMS: dict[str, Loss] = {
    PLAIN: _intern,
    STATED: _many_weakly,
    AUTHORS: _few_strongly,
    "KL-Cov 0.2, weight 1": _many_strongly,
    "PPO-clip": _clipped,
    "PPO-clip, controlled entropy": _with_bonus,
}


def entropy_row(out: Path, quick: bool, seed: int, progress: Progress) -> Row:
    """Return the claim: quick 2 arms, 2 seeds, 30 rounds; else 6, 3, 90."""
    start = time.perf_counter()
    arms = [PLAIN, STATED] if quick else list(ARMS)
    seeds = [derive_seed(seed, "policy", i) % 2**31 for i in range(SEEDS[quick])]
    return judged(
        run_arms(out, arms, seeds, ROUNDS[quick], progress), arms, seed, time.perf_counter() - start
    )


def judged(found: list[dict[str, Any]], arms: list[str], seed: int, seconds: float) -> Row:
    """Return the row of records of `run_arms`."""
    entropy, right = (
        {a: np.array([r[what] for r in found if r["arm"] == a]) for a in arms}
        for what in ("entropy", "right")
    )
    ratio = _interval(entropy[STATED] / entropy[PLAIN], seed)
    more = _interval(right[STATED] - right[PLAIN], seed)
    verdict: Verdict = "refuted"
    if ratio.low >= 2:
        verdict = "reproduced" if more.high >= 0 else "partly"
    listed = ", ".join(f"{a} {entropy[a].mean():.2f} and {right[a].mean():.2f}" for a in arms)
    before = [float(np.mean([r[k] for r in found])) for k in ("entropy_before", "right_before")]
    return Row(
        claim="KL-Cov keeps entropy, and accuracy with it",
        source="2508.15763 Fig. 14, after a summary", claimed=">= 2 times", measured=ratio.estimate,
        low=ratio.low, high=ratio.high, n=len(entropy[PLAIN]), verdict=verdict,
        note=f"entropy at the end over that without; P(right) more by {more.estimate:.3g} "
        f"[{more.low:.3g}, {more.high:.3g}]; nats a token and P(right), {before[0]:.2f} and "
        f"{before[1]:.2f} at the start: {listed}; interval over seeds",
        seconds=seconds, seed=seed,
    )  # fmt: skip


def _interval(values: np.ndarray, seed: int) -> Interval:
    return bootstrap_interval(
        lambda rows: values[rows].mean(), len(values), rng=stream(seed, "bootstrap")
    )


def run_arms(
    out: Path, arms: list[str], seeds: list[int], rounds: int, progress: Progress
) -> list[dict[str, Any]]:
    """Return entropy and accuracy after training of every arm and seed, from a journal if there."""
    with Journal(out / "entropy.jsonl") as journal:
        known = {(r["seed"], r["arm"]): r for r in journal}
        base: tuple[int, Any] | None = None
        for done, (seed, arm) in enumerate(((s, a) for s in seeds for a in arms), start=1):
            if (seed, arm) not in known:
                if base is None or base[0] != seed:
                    base = seed, pretrained(seed)
                policy = copy.deepcopy(base[1])
                record = {"seed": seed, "arm": arm, **run_arm(policy, ARMS[arm], seed, rounds)}
                journal.append(record)
                known[seed, arm] = record
            progress(done, len(seeds) * len(arms), {})
    return [known[s, a] for s in seeds for a in arms]


def run_arm(policy: Any, loss: Loss, seed: int, rounds: int) -> dict[str, Any]:
    """Train a policy; return entropy a token of its own answers and P(right), before and after."""
    rng = stream(seed, "rollouts")
    generator = torch.Generator().manual_seed(derive_seed(seed, "samples") % 2**63)
    optimizer = torch.optim.AdamW(policy.parameters(), lr=RATE, betas=(0.9, 0.95), weight_decay=0.1)
    control = AdaptiveEntropy(target=TARGET)
    start = _state(policy, seed)
    curve = [start["entropy"]]
    for _ in range(rounds):
        batch = _rollout(policy, graded(rng, PROBLEMS), generator)
        curve.append(_improve(policy, optimizer, batch, loss, control))
    return {**{f"{k}_before": v for k, v in start.items()}, **_state(policy, seed), "curve": curve}


def graded(rng: np.random.Generator, n: int) -> Digits:
    """Return problems of which a third each has one, two and three terms other than 0."""
    digits = 1 + draw_problems(rng, n, TERMS) % 9
    kept = 1 + np.arange(n) % TERMS
    order = rng.permuted(np.tile(np.arange(TERMS), (n, 1)), axis=1)
    return np.where(order < kept[:, None], digits, 0)


def _rollout(
    policy: Any, digits: np.ndarray, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Return ids of problems with sampled answers, advantages, and log-probabilities then."""
    ids, right = _sampled(policy, digits.repeat(SAMPLES, axis=0), generator)
    groups = torch.arange(len(digits)).repeat_interleave(SAMPLES)
    advantages = leave_one_out_advantages(right, groups)[:, None]
    with torch.no_grad():
        old = _scored(policy, ids).logprobs
    return ids, advantages, old


@torch.no_grad()
def _sampled(policy: Any, digits: Digits, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return ids of problems with sampled answers, and whether each is right."""
    ids = _prompts(digits)
    for _ in range(TERMS):
        p = policy(input_ids=ids, logits_to_keep=1).logits[:, -1, :10].softmax(1)
        ids = torch.cat([ids, torch.multinomial(p, 1, generator=generator)], 1)
    return ids, (ids[:, -TERMS:] == _right(digits)).all(1).float()


def _prompts(digits: Digits) -> Tensor:
    return torch.tensor([ALPHABET.prompt(d) for d in digits.tolist()])


def _right(digits: Digits) -> Tensor:
    return torch.from_numpy(digits.cumsum(1) % 10)


def _scored(policy: Any, ids: Tensor) -> TokenStats:
    """Return statistics of the answers' digits, sampled without the other two tokens."""
    hidden, _ = hidden_states(policy, input_ids=ids)
    head = head_options(policy)
    return token_logprobs(
        hidden[:, -TERMS - 1 : -1], targets=ids[:, -TERMS:], entropy=True,
        **head | {"weight": head["weight"][:10]},
    )  # fmt: skip


def _improve(
    policy: Any,
    optimizer: torch.optim.Optimizer,
    batch: tuple[Tensor, Tensor, Tensor],
    loss: Loss,
    control: AdaptiveEntropy,
) -> float:
    """Take the steps of a rollout, all samples of a problem in one step; return the entropy."""
    entropies = []
    for part in torch.arange(len(batch[0])).chunk(UPDATES):
        ids, advantages, old = (x[part] for x in batch)
        stats = _scored(policy, ids)
        bonus = torch.tensor(control.coefficient)
        mean_over_tokens(loss(stats, old, advantages, bonus), stats.mask).backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        entropies.append(float(torch.as_tensor(stats.entropy).detach().mean()))
        control.update(entropies[-1])
    return float(np.mean(entropies))


def _state(policy: Any, seed: int) -> dict[str, float]:
    """Return entropy a token of sampled answers and P(right), on problems held out."""
    digits = graded(stream(seed, "held out"), HELD_OUT)
    generator = torch.Generator().manual_seed(derive_seed(seed, "probe") % 2**63)
    ids, _ = _sampled(policy, digits, generator)
    best = torch.cat([_prompts(digits), _right(digits)], 1)
    with torch.no_grad():
        entropy = torch.as_tensor(_scored(policy, ids).entropy)
        right = _scored(policy, best).logprobs.sum(1).exp()
    return {"entropy": entropy.mean().item(), "right": right.mean().item()}
