import json

import pytest
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers

from meristem_core.testing import data_dir, open_page, pytest_configure, xp  # noqa: F401

WORDS = ["<pad>", "<eos>", *"abcdefghijklmnopqrstuvwxyz"]


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory):
    """A two-layer model over single letters, with a chat template, saved."""
    folder = tmp_path_factory.mktemp("model")
    inner = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="<pad>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", eos_token="<eos>"
    )
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }} {% endfor %}q"
    config = transformers.LlamaConfig(
        vocab_size=len(WORDS), hidden_size=16, intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=64, pad_token_id=0, eos_token_id=1,
        bos_token_id=1, attention_dropout=0.1,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        transformers.LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """A file a stage, and one for each loss with fields of its own; the repetition is right."""
    folder = tmp_path_factory.mktemp("data")
    letters = [chr(97 + i % 8) for i in range(40)]
    sft = [{"prompt": f"{c} {c}", "completion": f"{c} {c} {c}"} for c in letters]
    dpo = [
        {"prompt": c, "chosen": f"{c} {c}", "rejected": f"{d} b"}
        for c, d in zip(letters, letters[3:] + letters[:3], strict=True)
    ]
    kto = [
        {"prompt": r["prompt"], "completion": r[kind], "label": kind == "chosen"}
        for i, r in enumerate(dpo)
        for kind in (("chosen", "rejected")[i % 2],)
    ]
    rank = [
        {"prompt": r["prompt"], "ranked": [r["chosen"], r["prompt"], r["rejected"]]} for r in dpo
    ]
    triples = [{**r, "gold": r["chosen"]} for r in dpo]
    soft = [{**r, "probability": 0.9} for r in dpo]
    files = {
        "sft": sft, "dpo": dpo, "kto": kto, "rank": rank, "tpo": triples, "tpo_l": triples,
        "soft_dpo": soft,
    }  # fmt: skip
    for name, rows in files.items():
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder
