"""Fixtures: a folder as `meristem grow` leaves it, around a model of two thousand parameters."""

from pathlib import Path

import numpy as np
import pytest

from meristem_core.testing import open_page, pytest_configure  # noqa: F401


@pytest.fixture(scope="session")
def grown(tmp_path_factory) -> Path:
    """Return a run with two snapshots of a tiny model and its training tokens."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    run = tmp_path_factory.mktemp("grown")
    config = transformers.Qwen3Config(
        vocab_size=32, hidden_size=8, intermediate_size=16, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=1, head_dim=4, max_position_embeddings=32,
        bos_token_id=None, eos_token_id=0, pad_token_id=None, tie_word_embeddings=True,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for step in (0, 10):
            model = transformers.Qwen3ForCausalLM(config)
            model.save_pretrained(run / f"pretrain/snapshots/step-{step:09d}")
    (run / "tokens").mkdir()
    tokens = np.random.default_rng(0).integers(0, 32, 500, dtype=np.uint16)
    np.save(run / "tokens/english.train.npy", tokens)
    return run
