"""Which features carry a behaviour? Linear estimates of what each feature does to the metric.

- the metric m is a logit difference of one snapshot's model, see `Splice`
- f are a feature's codes on the clean prompt, f' on the patch prompt
- a positive effect supports the clean answer

Shape letters: N pairs, T positions, F features, D width.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from meristem_crosscoders._frames import long_frame
from meristem_crosscoders._splice import Splice, Written, written_in_features
from meristem_crosscoders._tasks import Pairs

Gradient = Callable[[Splice, Written], Float[Tensor, "N T D"]]
Change = Callable[[Written], Float[Tensor, "N T F"]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Attribution:
    """What each feature does to the metric of each pair."""

    task: str
    step: int
    effect: Float[Tensor, "N F"]  # logits
    clean: Float[Tensor, " N"]  # the metric of the clean prompt
    patched: Float[Tensor, " N"]  # the same with every feature as on the patch prompt

    def mean(self) -> Float[Tensor, " F"]:
        """Return the effects, averaged over pairs."""
        return self.effect.mean(0)

    def ranking(self) -> Int[Tensor, " F"]:
        """Return the features from the largest absolute mean effect to the smallest."""
        return self.mean().abs().argsort(descending=True, stable=True)

    def accuracy(self) -> float:
        """Return the share of clean prompts whose own answer has the larger logit."""
        return float((self.clean > 0).double().mean())

    def incompleteness(self) -> Float[Tensor, " N"]:
        """Return the sum of effects minus what patching every feature really changes."""
        return self.effect.sum(1) - (self.clean - self.patched)

    def to_frame(self) -> dict[str, Shaped[np.ndarray, " rows"]]:
        """Return one row for each feature: the effect and its standard error over pairs."""
        N, F = self.effect.shape
        spread = self.effect.std(0, correction=0) / max(1, N - 1) ** 0.5
        return long_frame({"feature": range(F)}, {"effect": self.mean(), "stderr": spread})


def gradient_attribution(splice: Splice, pairs: Pairs) -> Attribution:
    """Return sum_t f_i dm/df_i at the clean prompt: gradient times input.

    Parameters
    ----------
    splice
        The model and its features.
    pairs
        The task; the patch prompts only give the answers.

    Returns
    -------
    Effects of (pair, feature) in logits, summed over positions.

    Raises
    ------
    ValueError
        If an activation is not finite.

    Notes
    -----
    dm/df_i = <W_dec,i, dm/da> at the snapshot of the model: the decoder is linear.
    """
    return _attribute(splice, pairs, _gradient_at_clean, lambda w: w.clean_NTF)


def patching_attribution(splice: Splice, pairs: Pairs) -> Attribution:
    """Return sum_t (f_i - f'_i) dm/df_i at the clean prompt: attribution patching.

    Parameters and errors as for `gradient_attribution`.

    References
    ----------
    Nanda 2023, "Attribution patching"; Syed, Rager and Conmy 2023, arXiv 2310.10348.
    """
    return _attribute(splice, pairs, _gradient_at_clean, lambda w: w.clean_NTF - w.patch_NTF)


def integrated_gradients(splice: Splice, pairs: Pairs, *, n_steps: int = 10) -> Attribution:
    """Return sum_t (f_i - f'_i) times dm/df_i, averaged on the line from f' to f.

    Parameters
    ----------
    splice, pairs
        As for `gradient_attribution`.
    n_steps
        Midpoints f' + (j - 1/2) / n (f - f') at which the gradient is taken.

    Returns
    -------
    Effects that sum to m(f) - m(f') but for the error of the midpoint rule, which
    `Attribution.incompleteness` says.

    Raises
    ------
    ValueError
        If an activation is not finite or `n_steps` is below 1.

    References
    ----------
    Sundararajan, Taly and Yan 2017, arXiv 1703.01365; for features Marks et al. 2024,
    arXiv 2403.19647, who take 10 left end points: midpoints err in the second order only.
    """
    if n_steps < 1:
        raise ValueError(f"n_steps ({n_steps}) must be at least 1; 10 is usual")

    def mean_gradient(splice: Splice, written: Written) -> Float[Tensor, "N T D"]:
        change_NTD = (written.patch_NTF - written.clean_NTF) @ splice.rows
        total_NTD = torch.zeros_like(change_NTD)
        for j in range(n_steps):
            share = 1 - (j + 0.5) / n_steps
            total_NTD += _gradient(splice, written.pairs, written.active_NTD + share * change_NTD)
        return total_NTD / n_steps

    return _attribute(splice, pairs, mean_gradient, lambda w: w.clean_NTF - w.patch_NTF)


def _attribute(splice: Splice, pairs: Pairs, gradient: Gradient, change: Change) -> Attribution:
    effects: list[Tensor] = []
    metrics: list[Tensor] = []
    for written in written_in_features(splice, pairs):
        per_feature_NTF = gradient(splice, written) @ splice.rows.T
        effects.append((per_feature_NTF * change(written)).sum(1))
        change_NTD = (written.patch_NTF - written.clean_NTF) @ splice.rows
        both = (written.active_NTD, written.active_NTD + change_NTD)
        with torch.no_grad():
            metrics += [splice.logit_difference(written.pairs, each) for each in both]
    return Attribution(
        task=pairs.task,
        step=splice.step,
        effect=torch.cat(effects),
        clean=torch.cat(metrics[::2]),
        patched=torch.cat(metrics[1::2]),
    )


def _gradient_at_clean(splice: Splice, written: Written) -> Float[Tensor, "N T D"]:
    return _gradient(splice, written.pairs, written.active_NTD)


def _gradient(
    splice: Splice, pairs: Pairs, active_NTD: Float[Tensor, "N T D"]
) -> Float[Tensor, "N T D"]:
    """Return dm/da; a pair's metric depends on its own activations only."""
    with torch.enable_grad():
        active_NTD = active_NTD.detach().requires_grad_()
        total = splice.logit_difference(pairs, active_NTD).sum()
    return torch.autograd.grad(total, active_NTD)[0]
