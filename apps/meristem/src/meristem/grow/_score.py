"""What a model gains by induction, and samples of what it writes."""

import numpy as np
import torch
from jaxtyping import Integer
from transformers import PreTrainedModel

from meristem_core import derive_seed
from meristem_core.torch import score_rows

INDUCTION_ROWS = 64
TEMPERATURE = 0.8


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
