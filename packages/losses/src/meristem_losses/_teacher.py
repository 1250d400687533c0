"""A teacher's distributions beside the policy's: generalised Jensen-Shannon, and its gradient.

- m = (1 - beta) p + beta q; D = beta KL(q || m) + (1 - beta) KL(p || m) (2306.13649 Eq. 1), p the
  policy's distribution, q the teacher's; beta 0 stands for KL(q || p), beta 1 for KL(p || q)
- dD/dz_v = (1 - beta) p_v (log(p_v / m_v) - KL(p || m)); p - q and p (log(p / q) - KL) at the ends
- on the k tokens that are most probable under the policy, what is left is one more category, or
  is left out and both distributions are renormalised
"""

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

FAR = 60.0  # a log-ratio beyond it meets a probability below exp(-60): its value cannot matter


@dataclass(frozen=True, slots=True, kw_only=True)
class Teacher:
    """A second model's last hidden states and head, and how the policy is compared with it.

    Asked for by `token_logprobs` or `fused_loss`, whose statistics then hold `divergence`; the
    temperature is that of the call. No gradient reaches the teacher.

    Parameters
    ----------
    hidden, weight, bias, scale, softcap
        As those of the policy, of any width; rows, positions and vocabulary are the policy's.
    beta
        0: KL(teacher || policy), the forward KL; 1: KL(policy || teacher), the reverse KL;
        between: the generalised Jensen-Shannon divergence.
    top_k
        Compare on the k tokens most probable under the policy; by default on all.
    tail
        Whether the other tokens count as one category, else both are renormalised on the k.
    """

    hidden: Float[Tensor, "*rows R"]
    weight: Float[Tensor, "V R"]
    bias: Float[Tensor, " V"] | None = None
    scale: float = 1.0
    softcap: float | None = None
    beta: float = 0.5
    top_k: int | None = None
    tail: bool = True

    def rows(self, which: Tensor | slice) -> "Teacher":
        """Return the teacher of some rows."""
        return replace(self, hidden=self.hidden[which])

    def frozen(self, hidden: Float[Tensor, "*rows R"], weight: Float[Tensor, "V R"]) -> "Teacher":
        """Return the teacher without a way for gradients."""
        bias = None if self.bias is None else self.bias.detach()
        return replace(self, hidden=hidden.detach(), weight=weight.detach(), bias=bias)

    def check(self, positions: torch.Size, vocabulary: int) -> None:
        """Refuse what does not fit the policy."""
        if self.hidden.shape[:-1] != positions or len(self.weight) != vocabulary:
            raise ValueError(
                f"the teacher's hidden {tuple(self.hidden.shape)} and weight "
                f"{tuple(self.weight.shape)} must have the policy's rows and positions "
                f"{tuple(positions)} and vocabulary {vocabulary}"
            )
        if self.hidden.shape[-1] != self.weight.shape[1]:
            raise ValueError(
                f"the teacher's hidden has width {self.hidden.shape[-1]}, its weight "
                f"{self.weight.shape[1]}; pass weight as (V, R)"
            )
        if not 0 <= self.beta <= 1:
            raise ValueError(f"beta is {self.beta}; it must be within [0, 1]")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k is {self.top_k}; it must be at least 1")
        if self.softcap is not None and not 0 < self.softcap < math.inf:
            raise ValueError(f"the teacher's softcap is {self.softcap}; it must be above 0, finite")


def compare(
    z: Float[Tensor, "N V"],
    q: Float[Tensor, "N V"],
    teacher: Teacher,
    spares: tuple[Float[Tensor, "N V"], Float[Tensor, "N V"], Float[Tensor, "N V"]],
) -> tuple[Float[Tensor, " N"], Float[Tensor, "N V"]]:
    """Return the divergence of each row and its gradient on z; q and the spares are overwritten.

    `z` and `q` are logits of policy and teacher, already divided by the temperature.
    """
    if teacher.top_k is not None and teacher.top_k < z.shape[1]:
        return _on_top(z, q, teacher, spares[0])
    logp, logq = _log_softmax(z, spares[0]), _log_softmax(q, spares[1])
    return _divergence(logp, logq, teacher.beta, q, spares[2])


def _log_softmax(z: Tensor, out: Tensor) -> Tensor:
    peak = z.amax(1, keepdim=True)
    total = torch.sub(z, peak, out=out).exp_().sum(1, keepdim=True)
    return torch.sub(z, peak, out=out).sub_(total.log_())


def _divergence(
    logp: Tensor, logq: Tensor, beta: float, gap: Tensor, spare: Tensor
) -> tuple[Tensor, Tensor]:
    """Return values and gradients on the logits of p; all four tensors are overwritten."""
    torch.sub(logq, logp, out=gap)
    p, q = logp.exp_(), logq.exp_()
    if beta == 0:
        return torch.linalg.vecdot(q, gap), p.sub_(q)
    if beta == 1:
        value = -torch.linalg.vecdot(p, gap)
        return value, gap.add_(value[:, None]).mul_(p).neg_()
    ratio = gap.clamp_(-FAR, FAR).exp_()
    over_p = torch.mul(ratio, beta, out=spare).add_(1 - beta).log_()  # log m / p
    over_q = ratio.reciprocal_().mul_(1 - beta).add_(beta).log_()
    of_policy, of_teacher = -torch.linalg.vecdot(p, over_p), -torch.linalg.vecdot(q, over_q)
    pull = over_p.add_(of_policy[:, None]).mul_(p).mul_(beta - 1)
    return beta * of_teacher + (1 - beta) * of_policy, pull


def _on_top(z: Tensor, q: Tensor, teacher: Teacher, spare: Tensor) -> tuple[Tensor, Tensor]:
    """Return the same on the k likeliest tokens of the policy."""
    top, places = z.topk(teacher.top_k or 1, dim=1)
    groups = [top, q.gather(1, places)]
    rest = spare.copy_(z).scatter_(1, places, -torch.inf)
    tail = rest.logsumexp(1, keepdim=True)
    if teacher.tail:
        others = q.scatter_(1, places, -torch.inf).logsumexp(1, keepdim=True)
        groups = [torch.cat(pair, 1) for pair in zip(groups, (tail, others), strict=True)]
    logp, logq = (x.log_softmax(1) for x in groups)
    value, pull = _divergence(
        logp, logq, teacher.beta, torch.empty_like(logp), torch.empty_like(logp)
    )
    if not teacher.tail:
        return value, rest.zero_().scatter_(1, places, pull)
    rest.sub_(tail).exp_().mul_(pull[:, -1:])  # the pull on the tail, shared by probability
    return value, rest.scatter_(1, places, pull[:, :-1])
