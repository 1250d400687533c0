import pytest

from meristem_core.testing import data_dir, pytest_configure, xp  # noqa: F401

WORDS = ["<pad>", "<eos>", *"abcdefghijklmnopqrstuvwxyz"]


@pytest.fixture(scope="session")
def tokenizer():
    """A tokenizer of single letters, made on the spot."""
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer, models, pre_tokenizers

    inner = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="<pad>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", eos_token="<eos>"
    )


@pytest.fixture(scope="session")
def tiny_model():
    """A function from a seed to a two-layer model with random weights."""
    transformers = pytest.importorskip("transformers")
    import torch

    def make(seed=0, family="Llama", **options):
        config = getattr(transformers, f"{family}Config")(
            vocab_size=len(WORDS), hidden_size=16, intermediate_size=32, num_hidden_layers=2,
            num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=64,
            pad_token_id=0, eos_token_id=1, bos_token_id=1, **options,
        )  # fmt: skip
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = getattr(transformers, f"{family}ForCausalLM")(config)
            with torch.no_grad():
                for parameter in model.parameters():
                    if parameter.dim() == 2:
                        parameter.normal_(std=0.3)
        return model

    return make
