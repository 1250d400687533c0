"""How a model predicts given rows of tokens: log-probabilities in blocks, induction, samples."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int, Integer
from torch import Tensor
from transformers import PreTrainedModel

from meristem_core import derive_seed

BLOCK_BYTES = 8 * 2**20  # of one [positions, vocabulary] array: it stays in the cache
ROWS_AT_ONCE = 32
INDUCTION_ROWS = 64
TEMPERATURE = 0.8


@dataclass(frozen=True, slots=True)
class Block:
    """Consecutive positions: log-probabilities of the next token, the token before, the next."""

    logprobs: Float[Tensor, "n V"]
    previous: Int[Tensor, " n"]
    target: Int[Tensor, " n"]

    def loss(self) -> Float[Tensor, " n"]:
        """Return the loss at each position, nats."""
        return -self.logprobs.gather(1, self.target[:, None])[:, 0]


def score_rows(model: PreTrainedModel, rows: Int[Tensor, "rows width"]) -> Iterator[Block]:
    """Yield the rows' positions in order, in blocks of at most BLOCK_BYTES of logits.

    A row of n tokens has n - 1 positions: each token but the last predicts the one after it.
    """
    head = model.get_output_embeddings()
    positions = max(1, BLOCK_BYTES // (4 * model.config.vocab_size))
    for part in rows.to(model.device).split(ROWS_AT_ONCE):
        previous, target = part[:, :-1], part[:, 1:]
        with torch.inference_mode():
            hidden = model.base_model(input_ids=previous).last_hidden_state.flatten(0, 1)
            for states, before, after in zip(
                hidden.split(positions),
                previous.flatten().split(positions),
                target.flatten().split(positions),
                strict=True,
            ):
                yield Block(head(states).float().log_softmax(-1), before, after)


def induction_gain(model: PreTrainedModel, context: int, *, seed: int) -> float:
    """Return first-half minus second-half loss on repeated random tokens, nats a token.

    Each row is a random sequence of context // 2 tokens twice: only a model that looks back for
    what followed the same token before gains on the second half (Olsson et al., arXiv 2209.11895).
    """
    half = context // 2
    generator = torch.Generator().manual_seed(derive_seed(seed, "induction"))
    shape = (INDUCTION_ROWS, half)
    drawn = torch.randint(model.config.vocab_size, shape, generator=generator)
    blocks = score_rows(model, torch.cat([drawn, drawn], dim=1))
    loss = torch.cat([block.loss() for block in blocks]).view(INDUCTION_ROWS, 2 * half - 1)
    return float(loss[:, : half - 1].mean() - loss[:, half:].mean())


def continue_text(
    model: PreTrainedModel, prompt: Integer[np.ndarray, " n"], *, tokens: int, seed: int
) -> list[int]:
    """Return sampled token ids that continue the prompt.

    Equal seeds draw equal uniforms, so samples of successive snapshots differ by what they learned.
    """
    generator = torch.Generator().manual_seed(derive_seed(seed, "sample"))
    uniforms = torch.rand(tokens, generator=generator, dtype=torch.float64)
    ids = torch.from_numpy(prompt.astype(np.int64))[None].to(model.device)
    with torch.inference_mode():
        for uniform in uniforms.to(model.device):
            logits = model(input_ids=ids).logits[0, -1].double()
            cumulative = (logits / TEMPERATURE).softmax(0).cumsum(0)
            token = torch.searchsorted(cumulative, uniform * cumulative[-1])
            ids = torch.cat([ids, token.view(1, 1)], dim=1)
    return ids[0, prompt.size :].tolist()
