"""Fixtures: questions, a small chat server on loopback, a small saved model."""

import json
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from meristem_core import stream
from meristem_core.testing import open_page, pytest_configure  # noqa: F401


class Adder(BaseHTTPRequestHandler):
    """Adds two numbers, right with a chance that falls with their size; answers one at a time."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *words):
        pass

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.busy:
            time.sleep(self.server.delay)
            self.server.asked += 1
            self.server.seen.add((body["messages"][0]["content"], body["seed"]))
        if self.server.asked > self.server.until:
            return self.answer(400, {"error": {"message": "the quota is spent"}})
        a, b = map(int, re.findall(r"\d+", body["messages"][0]["content"])[:2])
        rng = stream(body["seed"], "adder")
        error = int(rng.integers(1, 4)) if rng.random() < (a + b) / 25 else 0
        words = ["Wait,"] * int(rng.integers(4)) + [f"so \\boxed{{{a + b + error}}}"]
        text = " ".join(words)
        choice = {"message": {"content": text}, "finish_reason": "stop"}
        return self.answer(
            200, {"choices": [choice], "usage": {"completion_tokens": 3 + len(text.split())}}
        )

    def answer(self, status, value):
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


class AdderServer(ThreadingHTTPServer):
    request_queue_size = 128  # all questions connect at once; the default is 5


@pytest.fixture
def adder():
    """A running server; `delay` seconds an answer, HTTP 400 after `until` of them.

    `seen` holds what was asked, once: requests that a client gave up may be answered later.
    """
    with AdderServer(("127.0.0.1", 0), Adder) as server:
        server.delay, server.until, server.asked, server.seen = 0.0, 10**9, 0, set()
        server.busy = threading.Lock()
        server.url = f"openai:http://127.0.0.1:{server.server_address[1]}/v1"
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def sums(tmp_path):
    """A file of twelve sums."""
    path = tmp_path / "sums.jsonl"
    lines = [
        {"id": f"s{i}", "question": f"What is {i} + {i + 1}?", "answer": 2 * i + 1}
        for i in range(12)
    ]
    path.write_text("\n".join(map(json.dumps, lines)) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def saved_model(tmp_path_factory):
    """A saved transformer over characters with random weights: its answers are digits by chance."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    alphabet = "0123456789+=. W\n"
    raw = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({c: i for i, c in enumerate(alphabet)}, unk_token=".")
    )
    raw.pre_tokenizer = tokenizers.pre_tokenizers.Split("", "isolated")
    raw.decoder = tokenizers.decoders.Fuse()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="=")
    tokenizer.chat_template = "{{ messages[0]['content'] }}"
    config = transformers.LlamaConfig(
        vocab_size=len(alphabet), hidden_size=64, intermediate_size=32, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=128,
        eos_token_id=alphabet.index("="), bos_token_id=None, pad_token_id=None,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("model")
    with torch.random.fork_rng():
        torch.manual_seed(1)
        transformers.LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
