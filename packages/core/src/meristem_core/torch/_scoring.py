"""How a causal model predicts given rows of tokens, a block of positions at a time.

The [positions, vocabulary] array of all rows is never held: the head is applied block by block.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

BLOCK_BYTES = 8 * 2**20  # of one [positions, vocabulary] array: it stays in the cache
ROWS_AT_ONCE = 32


@dataclass(frozen=True, slots=True)
class ScoredBlock:
    """Consecutive positions: log-probabilities of the next token, the token before, the next."""

    logprobs: Float[Tensor, "n V"]
    previous: Int[Tensor, " n"]
    target: Int[Tensor, " n"]

    def loss(self) -> Float[Tensor, " n"]:
        """Return the loss at each position, nats."""
        return -self.logprobs.gather(1, self.target[:, None])[:, 0]


def score_rows(model: nn.Module, rows: Int[Tensor, "rows width"]) -> Iterator[ScoredBlock]:
    """Yield the rows' positions in order, in blocks of at most BLOCK_BYTES of logits.

    Parameters
    ----------
    model
        A causal language model of the transformers library, in evaluation mode: it has
        `base_model` and `get_output_embeddings()`, and its logits are the one applied to the other.
    rows
        Token ids. A row of n tokens has n - 1 positions: each token but the last predicts the one
        after it.

    Raises
    ------
    ValueError
        If a row has fewer than 2 tokens, or the model's logits are not those of its head, as where
        they are scaled or capped.
    """
    if rows.shape[1] < 2:
        raise ValueError(f"rows have {rows.shape[1]} tokens; the second is the first predicted one")
    scored: Any = model  # the library's mixins have no common type without importing it
    head, base = scored.get_output_embeddings(), scored.base_model
    _check_head(scored, rows[:1, :2])
    positions = max(1, BLOCK_BYTES // (4 * head.weight.shape[0]))
    device = head.weight.device
    for part in rows.to(device).split(ROWS_AT_ONCE):
        previous, target = part[:, :-1], part[:, 1:]
        with torch.inference_mode():
            hidden = base(input_ids=previous).last_hidden_state.flatten(0, 1)
            for states, before, after in zip(
                hidden.split(positions),
                previous.flatten().split(positions),
                target.flatten().split(positions),
                strict=True,
            ):
                yield ScoredBlock(head(states).float().log_softmax(-1), before, after)


@torch.inference_mode()
def _check_head(model: Any, tokens: Int[Tensor, "one two"]) -> None:
    tokens = tokens.to(model.get_output_embeddings().weight.device)
    whole = model(input_ids=tokens).logits.float()
    parts = model.get_output_embeddings()(model.base_model(input_ids=tokens).last_hidden_state)
    size = float(whole.abs().max())
    if not torch.allclose(whole, parts.float(), rtol=0, atol=1e-2 * max(size, 1e-30)):
        raise ValueError(
            "this model's logits are not its head applied to its last hidden state (they are "
            "scaled or capped); such models cannot be scored block by block"
        )
