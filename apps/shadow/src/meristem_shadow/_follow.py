"""Move the start of an exact trajectory so that it follows a given one as long as it can.

- M_t = Df_{t-1} ... Df_0 along the given trajectory; its leading right singular vectors are the
  starts whose displacement grows most: subspace iteration with M_T and its transpose
- x_0 = p_0 + V a; Gauss-Newton on sum_t |x_t(a) - p_t|^2, where |.| is over the parameters theta
- every trial is a trajectory of f itself, so the distances are measured, not extrapolated
"""

# capitals are matrices
# pyright: reportConstantRedefinition=false

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from meristem_core.command import Progress
from meristem_shadow._optimiser import Optimiser, State

SWEEPS = 2  # of the subspace iteration
ROUNDS = 4  # of Gauss-Newton
HALVINGS = 6  # of a step that does not help
GAIN = 0.999  # a step helps if it brings the sum below this share

Trajectory = Float[Tensor, "n three_p"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """An exact trajectory beside the given one."""

    distance: Float[Tensor, " n"]  # |x_t - p_t| over the parameters
    objective: float
    normal: Float[Tensor, "k k"]  # of the least squares problem in a
    right: Float[Tensor, " k"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Followed:
    """Distances over the parameters, at t = 0, ..., T."""

    travelled: Float[Tensor, " n"]  # |p_t - p_0|
    errors: Float[Tensor, " t"]  # |p_{t+1} - f_t(p_t)|
    same_start: Float[Tensor, " n"]  # |x_t - p_t| from x_0 = p_0
    shadow: Float[Tensor, " n"]  # the same from the moved start
    growth: Float[Tensor, " k"]  # singular values of M_T, of the directions found
    moved: float  # |x_0 - p_0|
    rounds: int  # of Gauss-Newton that helped


def follow(
    optimiser: Optimiser, given: Trajectory, *, directions: int, progress: Progress
) -> Followed:
    """Return how closely float64 trajectories follow `given`, p_0, ..., p_T, of any float type."""
    T, P = len(given) - 1, given.shape[1] // 3
    count = _Count(progress, (1 + 2 * SWEEPS + 2 * ROUNDS + 1) * T)
    errors: list[Tensor] = []
    for t in range(T):
        errors.append((given[t + 1] - optimiser.step(given[t].double(), t))[:P].norm())
        count()
    V, growth = _growing(optimiser, given, directions, count)
    a = torch.zeros(directions, dtype=V.dtype)
    first = best = _trial(optimiser, given, V, a, count)
    rounds = 0
    for _ in range(ROUNDS):
        change = -torch.linalg.lstsq(best.normal, best.right[:, None]).solution[:, 0]
        better = _improved(optimiser, given, V, a, change, best, count)
        if better is None:
            break
        (a, best), rounds = better, rounds + 1
    return Followed(
        travelled=torch.stack([(p[:P].double() - given[0, :P]).norm() for p in given]),
        errors=torch.stack(errors),
        same_start=first.distance,
        shadow=best.distance,
        growth=growth,
        moved=float((V @ a).norm()),
        rounds=rounds,
    )


def _growing(
    optimiser: Optimiser, given: Trajectory, k: int, count: Callable[[], None]
) -> tuple[Float[Tensor, "three_p k"], Float[Tensor, " k"]]:
    """Return orthonormal starts in the parameters that grow most, and by how much."""
    T, P = len(given) - 1, given.shape[1] // 3
    V = torch.randn(P, k, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    growth = torch.ones(k, dtype=V.dtype)
    for _ in range(SWEEPS):
        W = _padded(torch.linalg.qr(V).Q)
        for t in range(T):
            W = _push(optimiser, given[t].double(), W, t)
            count()
        growth = torch.linalg.svdvals(W[:P])
        W = _padded(W[:P])
        for t in reversed(range(T)):
            W = _pull(optimiser, given[t].double(), W, t)
            count()
        V = W[:P]
    return _padded(torch.linalg.qr(V).Q), growth


def _padded(theta: Float[Tensor, "p k"]) -> Float[Tensor, "three_p k"]:
    """Return displacements of the parameters alone as displacements of the state."""
    return torch.cat([theta, torch.zeros_like(theta), torch.zeros_like(theta)])


def _push(
    optimiser: Optimiser, state: State, W: Float[Tensor, "three_p k"], t: int
) -> Float[Tensor, "three_p k"]:
    """Return Df_t W."""

    def one(w: State) -> State:
        return torch.func.jvp(lambda z: optimiser.step(z, t), (state,), (w,))[1]

    return torch.func.vmap(one, in_dims=1, out_dims=1)(W)


def _pull(
    optimiser: Optimiser, state: State, W: Float[Tensor, "three_p k"], t: int
) -> Float[Tensor, "three_p k"]:
    """Return the transpose of Df_t times W."""
    back = torch.func.vjp(lambda z: optimiser.step(z, t), state)[1]
    return torch.func.vmap(lambda w: back(w)[0], in_dims=1, out_dims=1)(W)


def _trial(
    optimiser: Optimiser,
    given: Trajectory,
    V: Float[Tensor, "three_p k"],
    a: Float[Tensor, " k"],
    count: Callable[[], None],
    *,
    slopes: bool = True,
) -> Trial:
    """Run the exact trajectory from p_0 + V a, with its derivatives by a unless left out."""
    P, k = given.shape[1] // 3, len(a)
    x, J = given[0] + V @ a, V
    normal, right, objective = torch.zeros(k, k, dtype=V.dtype), torch.zeros_like(a), 0.0
    distance = [(x - given[0])[:P].norm()]
    for t in range(len(given) - 1):
        if slopes:
            J = _push(optimiser, x, J, t)
            count()
        x = optimiser.step(x, t)
        gap = (x - given[t + 1])[:P]
        normal += J[:P].T @ J[:P]
        right += J[:P].T @ gap
        objective += float(gap.square().sum())
        distance.append(gap.norm())
    return Trial(distance=torch.stack(distance), objective=objective, normal=normal, right=right)


def _improved(
    optimiser: Optimiser,
    given: Trajectory,
    V: Float[Tensor, "three_p k"],
    a: Float[Tensor, " k"],
    change: Float[Tensor, " k"],
    best: Trial,
    count: Callable[[], None],
) -> tuple[Float[Tensor, " k"], Trial] | None:
    """Return a and its trial after a step that helps, halved until it does."""
    for _ in range(HALVINGS):
        trial = _trial(optimiser, given, V, a + change, count, slopes=False)
        if trial.objective < GAIN * best.objective:
            return a + change, _trial(optimiser, given, V, a + change, count)
        change = change / 2
    return None


class _Count:
    """Steps done, for the progress bar; never more than the total."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress, self._total, self._done = progress, total, 0

    def __call__(self) -> None:
        self._done = min(self._done + 1, self._total)
        self._progress(self._done, self._total, {})
