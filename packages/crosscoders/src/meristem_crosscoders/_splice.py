"""One snapshot's model with its activation at the site written in features.

- a = sum_i f_i W_dec,i + b_dec + e: the error e of the clean prompt is kept, so that the spliced
  model is the model itself until a feature is changed
- codes come from all snapshots on the same prompt; the metric from one snapshot's model

Shape letters: N pairs, T positions, F features, D width.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from meristem_crosscoders._blocks import BLOCK_CODES, Activations, check_raw, code_at
from meristem_crosscoders._model import Crosscoder
from meristem_crosscoders._tasks import Pairs

ROWS = 32  # prompts of one forward pass


@dataclass(frozen=True, slots=True, kw_only=True)
class Splice:
    """Where features meet a model: what attribution and its curves work on.

    Parameters
    ----------
    crosscoder
        Folded, so that it reads what the models give.
    activations
        From tokens (N, T) to the activations of all snapshots (N, T, S, D) at the site.
    model
        The causal model of one snapshot, in evaluation mode; returns logits or has them.
    site
        Name of the submodule whose output is the activation.
    step
        Training step of that snapshot.

    Raises
    ------
    ValueError
        If the crosscoder is not folded, has no such step, or the model no such site.
    """

    crosscoder: Crosscoder
    activations: Activations
    model: nn.Module
    site: str
    step: int

    def __post_init__(self) -> None:
        check_raw(self.crosscoder)
        if self.step not in self.crosscoder.config.steps:
            raise ValueError(
                f"step {self.step} is no snapshot of this crosscoder; give one of "
                f"{self.crosscoder.config.steps}"
            )
        if self.site not in dict(self.model.named_modules()):
            raise ValueError(f"the model has no module {self.site!r}; give the harvested site")

    @property
    def index(self) -> int:
        """Return the number of the snapshot."""
        return self.crosscoder.config.steps.index(self.step)

    @property
    def rows(self) -> Float[Tensor, "F D"]:
        """Return the decoder rows that write to this snapshot's activation."""
        return self.crosscoder.W_dec[:, self.index].detach()

    def logit_difference(
        self, pairs: Pairs, active_NTD: Float[Tensor, "N T D"]
    ) -> Float[Tensor, " N"]:
        """Return logit(clean answer) - logit(patch answer) with these activations at the site.

        The tokens are those of the clean prompts; differentiable in the activations.
        """
        replaced: list[bool] = []

        def replace(module: nn.Module, inputs: object, output: Any) -> Any:
            whole = output if isinstance(output, Tensor) else output[0]
            replaced.append(True)
            active = active_NTD.to(whole)
            return active if isinstance(output, Tensor) else (active, *output[1:])

        device = next(self.model.parameters()).device
        handle = self.model.get_submodule(self.site).register_forward_hook(replace)
        try:
            output = self.model(pairs.clean.to(device))
        finally:
            handle.remove()
        if not replaced:
            raise ValueError(f"the forward pass never comes to {self.site!r}; give another site")
        logits_NTV = output if isinstance(output, Tensor) else output.logits
        return logit_difference(logits_NTV, pairs).to(active_NTD.device)


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """Some pairs, with the clean prompts' activation and the codes of both prompts."""

    pairs: Pairs
    active_NTD: Float[Tensor, "N T D"]
    clean_NTF: Float[Tensor, "N T F"]
    patch_NTF: Float[Tensor, "N T F"]


def logit_difference(logits_NTV: Float[Tensor, "N T V"], pairs: Pairs) -> Float[Tensor, " N"]:
    """Return logit(clean answer) - logit(patch answer) at the last position of each prompt."""
    device = logits_NTV.device
    row = torch.arange(len(pairs), device=device)
    last_NV = logits_NTV[row, pairs.last.to(device)]
    last_NV = last_NV.to(torch.promote_types(last_NV.dtype, torch.float32))
    clean, patch = pairs.clean_answer.to(device), pairs.patch_answer.to(device)
    return last_NV[row, clean] - last_NV[row, patch]


def written_in_features(splice: Splice, pairs: Pairs) -> Iterator[Written]:
    """Yield the pairs in order, a few at a time, with their codes."""
    check_length(pairs)
    size = pairs.clean.shape[1] * splice.crosscoder.config.n_features
    rows = max(1, min(ROWS, BLOCK_CODES // size))
    for start in range(0, len(pairs), rows):
        part = pairs[start : start + rows]
        clean, patch = (_read(splice, tokens) for tokens in (part.clean, part.patch))
        yield Written(pairs=part, active_NTD=clean[0], clean_NTF=clean[1], patch_NTF=patch[1])


def check_length(pairs: Pairs) -> None:
    """Raise a ValueError if a last position lies outside of its prompt."""
    T = pairs.clean.shape[1]
    if bool(((pairs.last < 0) | (pairs.last >= T)).any()):
        raise ValueError(f"a last position lies outside of 0 to {T - 1}; count from 0")


def _read(
    splice: Splice, tokens: Int[Tensor, "N T"]
) -> tuple[Float[Tensor, "N T D"], Float[Tensor, "N T F"]]:
    x_NTSD = splice.activations(tokens).to(splice.crosscoder.W_enc)
    return x_NTSD[:, :, splice.index], code_at(splice.crosscoder, x_NTSD, splice.index)
