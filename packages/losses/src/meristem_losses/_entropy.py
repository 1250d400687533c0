"""Entropy of a policy: a bonus, and the controller that decides its size."""

from jaxtyping import Float
from torch import Tensor

from meristem_losses._stats import TokenStats, finite, need


def entropy_bonus(stats: TokenStats, coefficient: float) -> Float[Tensor, "B S"]:
    """Return -coefficient times the entropy of each token's distribution."""
    finite(coefficient=coefficient)
    return -coefficient * need(stats, "entropy", "entropy_bonus")


class AdaptiveEntropy:
    """Coefficient of `entropy_bonus` that rises while entropy is at or below a target (2505.22312).

    Call `update` once an optimiser step with the mean entropy of its tokens over all processes;
    use `coefficient` in the next step. It is 0 while the last entropy was above the target.

    Parameters
    ----------
    target
        Entropy to hold, in nats.
    step, low, high, start
        Change an update, bounds and first value of the controlled coefficient.
    """

    def __init__(
        self,
        target: float = 0.2,
        *,
        step: float = 0.005,
        low: float = 0.0,
        high: float = 1.0,
        start: float = 0.0,
    ) -> None:
        if not (0 <= low <= start <= high and step > 0 and target >= 0):
            raise ValueError(
                f"low {low}, start {start}, high {high}, step {step}, target {target} must satisfy "
                "0 <= low <= start <= high, step > 0 and target >= 0"
            )
        self.target, self.step, self.low, self.high = target, step, low, high
        self.controlled = start
        self.last_entropy: float | None = None

    @property
    def coefficient(self) -> float:
        """Return the coefficient of the current step."""
        if self.last_entropy is None or self.last_entropy > self.target:
            return 0.0
        return self.controlled

    def update(self, entropy: float) -> None:
        """Take in the mean entropy of one optimiser step."""
        if not 0 <= entropy < float("inf"):
            raise ValueError(f"entropy is {entropy}; it must be at least 0 and finite, in nats")
        change = self.step if entropy <= self.target else -self.step
        self.controlled = min(max(self.controlled + change, self.low), self.high)
        self.last_entropy = entropy

    def state_dict(self) -> dict[str, float | None]:
        """Return what `load_state_dict` needs to go on."""
        return {"controlled": self.controlled, "last_entropy": self.last_entropy}

    def load_state_dict(self, state: dict[str, float | None]) -> None:
        """Go on from a saved state."""
        controlled = state["controlled"]
        if controlled is None or not self.low <= controlled <= self.high:
            raise ValueError(
                f"the saved coefficient is {controlled}, outside [{self.low}, {self.high}]"
            )
        self.controlled, self.last_entropy = controlled, state["last_entropy"]
