"""Codes of many tokens as lists, a block at a time, so that no analysis holds all of them.

Shape letters: B tokens, F features, S snapshots, D width, N sequences, T positions.
"""

from collections.abc import Callable, Iterable, Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor

from meristem_crosscoders._entries import OpenCodes
from meristem_crosscoders._model import Crosscoder
from meristem_crosscoders._select import open_codes

BLOCK_CODES = 2**23  # pre-activations in one block: 32 MiB in float32

# From tokens to the raw activations of all snapshots: `SnapshotSet.activations`.
Activations = Callable[[Int[Tensor, "N T"]], Float[Tensor, "N T S D"]]


def code_blocks(
    crosscoder: Crosscoder, batches: Iterable[Float[Tensor, "_ S D"]]
) -> Iterator[tuple[Float[Tensor, "b S D"], OpenCodes]]:
    """Yield all activations in order, in blocks, each with its codes.

    Raises
    ------
    ValueError
        If an activation is not finite, there is none, or a "batchtopk" crosscoder is in training
        mode, where codes depend on the block.
    """
    check_ready(crosscoder)
    size = max(1, BLOCK_CODES // crosscoder.config.n_features)
    tokens = 0
    for batch_BSD in batches:
        if not bool(batch_BSD.isfinite().all()):
            raise ValueError(f"a batch after token {tokens} holds NaN or infinity; drop them")
        tokens += len(batch_BSD)
        for x_BSD in batch_BSD.split(size):
            with torch.no_grad():
                codes = open_codes(crosscoder, x_BSD)
            yield x_BSD, codes
    if tokens == 0:
        raise ValueError("there is no activation; the iterator was empty or used up")


def code_at(
    crosscoder: Crosscoder, x_NTSD: Float[Tensor, "N T S D"], snapshot: int
) -> Float[Tensor, "N T F"]:
    """Return the codes of sequences at one snapshot."""
    blocks = code_blocks(crosscoder, [x_NTSD.flatten(0, 1)])
    parts = [codes.at(snapshot, crosscoder.config.n_features) for _, codes in blocks]
    return torch.cat(parts).unflatten(0, x_NTSD.shape[:2])


def normalised_rows(crosscoder: Crosscoder) -> Float[Tensor, "F S D"]:
    """Return the decoder rows in normalised space, folded or not."""
    return crosscoder.W_dec.detach() * crosscoder.scale[:, None]


def check_ready(crosscoder: Crosscoder) -> None:
    """Raise a ValueError if codes would depend on the batch."""
    if crosscoder.training and crosscoder.config.activation == "batchtopk":
        raise ValueError(
            "a batchtopk crosscoder in training mode selects within its batch; call .eval() first"
        )


def check_raw(crosscoder: Crosscoder) -> None:
    """Raise a ValueError unless the crosscoder reads what models give."""
    if not crosscoder.config.raw:
        raise ValueError(
            "this crosscoder reads normalised activations, but models give raw ones; give "
            "fold_normalisation(crosscoder, normalisation)"
        )
    check_ready(crosscoder)
