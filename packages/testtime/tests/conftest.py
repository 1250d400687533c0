import contextlib
import importlib.util
import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from meristem_core.testing import data_dir, pytest_configure  # noqa: F401
from meristem_testtime import FakeEngine, Traces

START = 300  # seconds that a server may take to start


@pytest.fixture(scope="session")
def serving():
    """Runs a command of this environment that serves on a free port; gives the server's address."""

    @contextlib.contextmanager
    def run(command, variables):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        words = [str(Path(sys.executable).with_name(command[0])), *command[1:]]
        words += ["--host", "127.0.0.1", "--port", str(port)]
        process = subprocess.Popen(words, env={**os.environ, **variables}, start_new_session=True)
        try:
            limit = time.monotonic() + START
            while True:
                with contextlib.suppress(OSError):
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
                    break
                assert process.poll() is None, f"{command[0]} ended"
                assert time.monotonic() < limit, f"{command[0]} did not start"
                time.sleep(0.5)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.terminate()
            process.wait(60)

    return run


@pytest.fixture(scope="session")
def make():
    """Traces of questions given as lists of (answer, tokens, score); class 0 is right."""

    def built(questions, right=(0,)):
        rows = [(q, *sample) for q, samples in enumerate(questions) for sample in samples]
        question, answer, tokens, score = (np.array(column) for column in zip(*rows, strict=True))
        return Traces(
            question=question.astype(np.int64),
            answer=answer.astype(np.int64),
            tokens=tokens.astype(np.int64),
            correct=np.isin(answer, right),
            questions=tuple(f"q{i}" for i in range(len(questions))),
            scores={"reward": score.astype(np.float64)},
        )

    return built


@pytest.fixture(scope="session")
def small_server():
    """The module `openai_server` of this folder."""
    path = Path(__file__).with_name("openai_server.py")
    spec = importlib.util.spec_from_file_location("openai_server", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["openai_server"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def fake(small_server):
    return FakeEngine(small_server.by_sums, small_server.ALPHABET)


@pytest.fixture(scope="session")
def trained_folder(small_server, tmp_path_factory):
    """A saved transformer with one character a token, trained to add 0 or 1 to a digit."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    alphabet = small_server.ALPHABET
    vocabulary = {character: i for i, character in enumerate(alphabet)}
    raw = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="."))
    raw.pre_tokenizer = tokenizers.pre_tokenizers.Split("", "isolated")
    raw.decoder = tokenizers.decoders.Fuse()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=raw, eos_token=".")
    config = transformers.LlamaConfig(
        vocab_size=len(alphabet), hidden_size=128, intermediate_size=128, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=64,
        eos_token_id=len(alphabet) - 1, bos_token_id=None, pad_token_id=None,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = transformers.LlamaForCausalLM(config)
        optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
        texts = [f"{a}+{b}={(a + b) % 10};." for a in range(10) for b in (0, 1)]
        ids = torch.tensor([[vocabulary[c] for c in text] for text in texts])
        for _ in range(600):
            output = model(input_ids=ids, labels=ids)
            if (output.logits[:, 3].argmax(-1) == ids[:, 4]).all():
                break
            output.loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    folder = tmp_path_factory.mktemp("trained")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def trained(trained_folder):
    transformers = pytest.importorskip("transformers")
    from meristem_testtime.hf import HFEngine

    model = transformers.AutoModelForCausalLM.from_pretrained(trained_folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(trained_folder)
    return HFEngine(model, tokenizer, name="sums", max_batch=16)
