"""Scoring rows block by block: the head's own log-probabilities, in order."""

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meristem_core.testing import assert_close, seeds

torch = pytest.importorskip("torch")

from meristem_core.torch import score_rows  # noqa: E402 after the skip


class Model(torch.nn.Module):
    """The state of a position is the sum of the embeddings so far; `cap` bends the logits."""

    def __init__(self, seed, cap=None):
        super().__init__()
        self.cap = cap
        generator = torch.Generator().manual_seed(seed)
        self.embedding = torch.nn.Embedding(7, 3)
        self.head = torch.nn.Linear(3, 7, bias=False)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator))

    def get_output_embeddings(self):
        return self.head

    def base_model(self, input_ids):
        return SimpleNamespace(last_hidden_state=self.embedding(input_ids).cumsum(1))

    def forward(self, input_ids):
        logits = self.head(self.base_model(input_ids).last_hidden_state)
        return SimpleNamespace(logits=logits if self.cap is None else logits.tanh() * self.cap)


@given(seed=seeds(), rows=st.integers(1, 40), width=st.integers(2, 9), positions=st.integers(1, 50))
def test_blocks_of_any_size_are_the_whole(seed, rows, width, positions):
    model = Model(seed)
    ids = torch.randint(7, (rows, width), generator=torch.Generator().manual_seed(seed))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("meristem_core.torch._scoring.BLOCK_BYTES", 4 * 7 * positions)
        blocks = list(score_rows(model, ids))
    assert max(len(block.target) for block in blocks) <= positions
    with torch.no_grad():
        whole = model(ids[:, :-1]).logits.log_softmax(-1).flatten(0, 1)
    assert_close(torch.cat([block.logprobs for block in blocks]), whole, scale=100.0)
    assert torch.equal(torch.cat([block.previous for block in blocks]), ids[:, :-1].flatten())
    target = torch.cat([block.target for block in blocks])
    assert torch.equal(target, ids[:, 1:].flatten())
    loss = torch.cat([block.loss() for block in blocks])
    assert_close(loss, -whole[torch.arange(len(target)), target], scale=100.0)


def test_capped_logits_and_single_tokens_are_refused():
    ids = torch.ones(2, 3, dtype=torch.int64)
    with pytest.raises(ValueError, match="scaled or capped"):
        next(score_rows(Model(0, cap=0.5), ids))
    with pytest.raises(ValueError, match="1 tokens"):
        next(score_rows(Model(0), ids[:, :1]))
