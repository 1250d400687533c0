"""What a run will cost, known before it starts."""

from dataclasses import dataclass

from meristem.grow._config import Scale

H100_FLOPS = 989e12  # dense bfloat16, NVIDIA's data sheet
UTILISATION = 0.4  # of the peak, what well-kept training loops reach at this size


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Size of a pre-training run."""

    parameters: int
    tokens: int
    flops: float  # 6 a parameter and token, plus attention
    memory: int  # bytes of parameters, gradients and optimiser state, per process

    @property
    def gpu_hours(self) -> float:
        """Hours on one H100 at 40 % of its peak."""
        return self.flops / (H100_FLOPS * UTILISATION) / 3600

    def __str__(self) -> str:
        """Return the estimate in one line; GPU hours only where they count."""
        gpus = f"; about {self.gpu_hours:,.0f} H100 hours" if self.gpu_hours >= 1 else ""
        return (
            f"{self.parameters / 1e6:,.1f} M parameters, {self.tokens / 1e6:,.1f} M tokens, "
            f"{self.flops:.1e} FLOP, {self.memory / 2**20:,.0f} MiB of weights and optimiser state"
            + gpus
        )


def estimate_cost(scale: Scale) -> Cost:
    """Return the cost of a scale: 6 N D plus attention (Kaplan et al., arXiv 2001.08361, 2.1).

    Examples
    --------
    >>> from meristem.grow._config import SCALES
    >>> print(f"{estimate_cost(SCALES['paper']).flops:.1e}")
    2.7e+20
    """
    block = 4 * scale.width**2 + 9 * scale.width**2  # attention, gated MLP of width 3 d
    parameters = scale.layers * block + scale.vocabulary * scale.width
    tokens = scale.steps * scale.batch * scale.context
    attention = 6 * scale.layers * scale.width * scale.context
    return Cost(
        parameters=parameters,
        tokens=tokens,
        flops=float(tokens) * (6 * parameters + attention),
        memory=16 * parameters,
    )
