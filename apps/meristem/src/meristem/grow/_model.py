"""The decoder that is grown: a Qwen3-style transformer of the transformers library."""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel, Qwen3Config, Qwen3ForCausalLM

from meristem.grow._config import Scale

SHORT_CONTEXT = 256  # on a CPU plain attention beats the fused kernel up to about here


def build_model(scale: Scale, *, seed: int, end: int) -> PreTrainedModel:
    """Return a freshly initialised model; equal seeds give equal weights.

    Parameters
    ----------
    scale
        Sizes.
    seed
        Of the initial weights; the global generator is left as it was.
    end
        Token id that closes a document.
    """
    config = Qwen3Config(
        vocab_size=scale.vocabulary,
        hidden_size=scale.width,
        intermediate_size=3 * scale.width,
        num_hidden_layers=scale.layers,
        num_attention_heads=scale.heads,
        num_key_value_heads=scale.heads,
        head_dim=scale.width // scale.heads,
        max_position_embeddings=scale.context,
        tie_word_embeddings=True,
        use_cache=False,
        bos_token_id=end,
        eos_token_id=end,
        attn_implementation=attention(scale.context),  # pyright: ignore[reportCallIssue]
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Qwen3ForCausalLM(config)


def load_snapshot(folder: Path, *, context: int) -> PreTrainedModel:
    """Return the model of a snapshot folder, in evaluation mode, in float32."""
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation=attention(context)
    )
    return model.eval()


def attention(context: int) -> str:
    """Return the faster attention implementation of transformers for this machine."""
    plain = not torch.cuda.is_available() and context <= SHORT_CONTEXT
    return "eager" if plain else "sdpa"


def native_bfloat16() -> bool:
    """Tell whether this machine multiplies bfloat16 matrices faster than float32 ones."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    cpu: Any = torch.cpu  # has no public question of this kind
    return cpu._is_avx512_bf16_supported() or cpu._is_amx_tile_supported()
