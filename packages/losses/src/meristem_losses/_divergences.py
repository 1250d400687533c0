"""f-divergences, their concave conjugates for fine-tuning, and their links for preferences.

- generators are normalised to f(1) = f'(1) = 0, f''(1) = 1, so beta means the same for all
- phi(x) = -f*(-x), concave, phi(0) = 0, phi'(0) = 1; phi' is the weight of a token
- link s(l) = f'(e^l), the reward of a log-ratio; it needs f'(0+) = -inf, else the optimum may
  leave out responses and the reward is not identified
- phi goes on as a straight line below the point where phi' reaches MAX_WEIGHT, a link where its
  slope reaches MAX_SLOPE: no domain error, no lost gradient
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

MAX_WEIGHT = 20.0  # a token never weighs more than 20 tokens of plain fine-tuning
MAX_SLOPE = math.exp(10.0)

Curve = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Divergence:
    """A divergence D_f; `phi` or `link` is None where the method is not offered."""

    name: str
    f: Curve
    f_prime: Curve
    phi: Curve | None
    phi_prime: Curve | None
    link: Curve | None

    def reward(self, log_ratio: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Return s(log_ratio), or say why this divergence has none."""
        if self.link is None:
            raise ValueError(
                f"{self.name} has no link for preferences: its f'(0+) is finite, so the reward is "
                "not identified; use REVERSE_KL, CHI2_KL or alpha_divergence below 1"
            )
        return self.link(log_ratio)

    def value(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Return phi(x), or say that it is not offered."""
        if self.phi is None:
            raise ValueError(f"{self.name} is offered for preferences only; use PEARSON_CHI2")
        return self.phi(x)


def _line_below(curve: Curve, start: float, slope: float) -> Curve:
    def continued(x: Tensor) -> Tensor:
        return curve(x.clamp(min=start)) - slope * (start - x).relu()

    return continued


def _floor(curve: Curve, start: float) -> Curve:
    return lambda x: curve(x.clamp(min=start))


def _expm1(x: Tensor) -> Tensor:
    """Return exp(x) - 1; torch.expm1 takes its own value plus 1 as slope, 0 below x = -37."""
    return torch.where(x > -1, x.clamp(min=-1).expm1(), x.clamp(max=-1).exp() - 1)


TOTAL_VARIATION = Divergence(
    name="total variation",
    f=lambda u: (u - 1).abs(),
    f_prime=lambda u: (u - 1).sign(),
    phi=lambda x: x,
    phi_prime=lambda x: x.new_ones(x.shape),
    link=None,
)
PEARSON_CHI2 = Divergence(
    name="Pearson chi-squared",
    f=lambda u: (u - 1) ** 2 / 2,
    f_prime=lambda u: u - 1,
    phi=_line_below(lambda x: (1 - (1 - x).clamp(min=0) ** 2) / 2, 1 - MAX_WEIGHT, MAX_WEIGHT),
    phi_prime=lambda x: (1 - x).clamp(0, MAX_WEIGHT),
    link=None,
)
SQUARED_HELLINGER = Divergence(
    name="squared Hellinger",
    f=lambda u: 2 * (u.sqrt() - 1) ** 2,
    f_prime=lambda u: 2 * (1 - u**-0.5),
    phi=_line_below(lambda x: x / (1 + x / 2), 2 * (MAX_WEIGHT**-0.5 - 1), MAX_WEIGHT),
    phi_prime=_floor(lambda x: (1 + x / 2) ** -2, 2 * (MAX_WEIGHT**-0.5 - 1)),
    link=_line_below(lambda r: -2 * _expm1(-r / 2), -2 * math.log(MAX_SLOPE), MAX_SLOPE),
)
_JS_START = 2 * math.log((1 + 1 / MAX_WEIGHT) / 2)
JENSEN_SHANNON = Divergence(
    name="Jensen-Shannon",
    f=lambda u: 2 * (u * u.log() - (1 + u) * ((1 + u) / 2).log()),
    f_prime=lambda u: 2 * (2 * u / (1 + u)).log(),
    phi=_line_below(lambda x: 2 * (-_expm1(-x / 2)).log1p(), _JS_START, MAX_WEIGHT),
    phi_prime=_floor(lambda x: 1 / (2 * (x / 2).exp() - 1), _JS_START),
    link=lambda r: 2 * (math.log(2) + logsigmoid(r)),
)
REVERSE_KL = Divergence(
    name="reverse KL",
    f=lambda u: u * u.log() - u + 1,
    f_prime=lambda u: u.log(),
    phi=_line_below(lambda x: -_expm1(-x), -math.log(MAX_WEIGHT), MAX_WEIGHT),
    phi_prime=_floor(lambda x: (-x).exp(), -math.log(MAX_WEIGHT)),
    link=lambda r: r,
)
FORWARD_KL = Divergence(
    name="forward KL",
    f=lambda u: -u.log() + u - 1,
    f_prime=lambda u: 1 - 1 / u,
    phi=_line_below(lambda x: x.log1p(), 1 / MAX_WEIGHT - 1, MAX_WEIGHT),
    phi_prime=_floor(lambda x: 1 / (1 + x), 1 / MAX_WEIGHT - 1),
    link=_line_below(lambda r: -_expm1(-r), -math.log(MAX_SLOPE), MAX_SLOPE),
)


def _chi2_kl_link(r: Tensor) -> Tensor:
    end = math.log(MAX_SLOPE - 1)
    inside = r.clamp(max=end)
    return inside.expm1() + inside + MAX_SLOPE * (r - end).relu()


CHI2_KL = Divergence(
    name="chi-squared + KL",
    f=lambda u: (u - 1) ** 2 / 2 + u * u.log() - u + 1,
    f_prime=lambda u: u - 1 + u.log(),
    phi=None,
    phi_prime=None,
    link=_chi2_kl_link,
)


def alpha_divergence(alpha: float) -> Divergence:
    """Return the Cressie-Read divergence (u^a - a u - 1 + a) / (a (a - 1)).

    alpha 2 is Pearson's, 1/2 squared Hellinger, 1 reverse KL, 0 forward KL (closed forms within
    1e-6). Only alpha < 1 and alpha = 1 have a link for preferences.
    """
    if not math.isfinite(alpha):
        raise ValueError(f"alpha is {alpha}; it must be finite")
    if abs(alpha) < 1e-6:
        return FORWARD_KL
    c = alpha - 1
    if abs(c) < 1e-6:
        return REVERSE_KL
    start = (1 - MAX_WEIGHT**c) / c
    link = _line_below(lambda r: _expm1(c * r) / c, math.log(MAX_SLOPE) / c, MAX_SLOPE)
    return Divergence(
        name=f"alpha divergence ({alpha})",
        f=lambda u: (u**alpha - alpha * u - 1 + alpha) / (alpha * c),
        f_prime=lambda u: (u**c - 1) / c,
        phi=_line_below(
            lambda x: (1 - (1 - c * x).clamp(min=0) ** (alpha / c)) / alpha, start, MAX_WEIGHT
        ),
        phi_prime=_floor(lambda x: (1 - c * x).clamp(min=0) ** (1 / c), start),
        link=link if alpha < 1 else None,
    )
