"""A small server of the OpenAI protocol over the exact engine, and the world it serves.

Started as a script it serves on the port that is its first argument; the second is a delay in
seconds before each answer.
"""

import asyncio
import json
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np

import meristem_testtime as tt

ALPHABET = "0123456789+=;."
CONTEXT = 64


def by_sums(ids):
    """An exact process with one likely symbol after each text, more or less so."""
    weights = np.full(len(ALPHABET), 0.02)
    weights[(3 * sum(ids) + len(ids)) % len(ALPHABET)] += 0.5 + sum(ids) % 5 / 4
    return weights / weights.sum()


class Characters:
    """A tokenizer with one token for each character; the last ends a text and is not shown."""

    def encode(self, text, add_special_tokens=True):
        return [ALPHABET.index(character) for character in text]

    def decode(self, ids, skip_special_tokens=False):
        return "".join(ALPHABET[i] for i in ids)


class Server(ThreadingHTTPServer):
    """Answers from `engine`; while `faults` holds (status, headers), the next request gets that.

    A stream waits `pace` seconds after each event, which has `burst` tokens; `sent` counts events,
    `cut` the streams that the client left, and after `torn` events one ends as if it were whole.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(
        self, engine, *, port=0, delay=0.0, pace=0.0,
        features=("token_ids", "logprobs", "usage", "cache"),
    ):  # fmt: skip
        super().__init__(("127.0.0.1", port), Handler)
        self.engine, self.delay, self.features = engine, delay, features
        self.pace, self.torn, self.burst = pace, None, 1
        self.faults, self.asked, self.sent, self.cut = [], 0, 0, 0
        self.read = []  # prompts
        self.url = f"http://127.0.0.1:{self.server_address[1]}/v1"

    def __enter__(self):
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()
        return super().__enter__()

    def handle_error(self, request, client_address):
        if not isinstance(sys.exc_info()[1], ConnectionError):  # a client that left
            super().handle_error(request, client_address)

    def __exit__(self, *error):
        self.shutdown()
        super().__exit__(*error)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *words):
        pass

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server = self.server
        server.asked += 1
        if server.faults:
            status, headers = server.faults.pop(0)
            return self.answer(status, {"error": {"message": "a planted fault"}}, headers)
        time.sleep(server.delay)
        if self.path == "/v1/chat/completions":
            return self.stream(self.spoken(body)) if "stream" in body else self.chat(body)
        if len(body["prompt"]) + body["max_tokens"] > CONTEXT:
            said = f"{len(body['prompt'])} tokens and {body['max_tokens']} more exceed {CONTEXT}"
            return self.answer(400, {"error": {"message": said}})
        return self.stream(self.written(body)) if "stream" in body else self.completions(body)

    def completions(self, body):
        features, prompt = self.server.features, tuple(body["prompt"])
        choices = []
        for place, sample in enumerate(self.sampled(body, prompt)):
            choice = {
                "index": place,
                "text": self.server.engine.decode(sample.ids),
                "finish_reason": "length" if sample.finish == "length" else "stop",
            }
            if "token_ids" in features and body.get("return_token_ids"):
                choice["token_ids"] = sample.ids
            if "logprobs" in features and body.get("logprobs") is not None:
                choice["logprobs"] = {
                    "token_logprobs": sample.logprobs,
                    "top_logprobs": self.likeliest(body, prompt, sample.ids),
                }
            if "token_ids" in features and body.get("prompt_logprobs") is not None:
                scores = asyncio.run(self.server.engine.logprobs([(prompt[:1], prompt[1:])]))[0]
                choice["prompt_logprobs"] = [None] + [
                    {str(i): {"logprob": score}}
                    for i, score in zip(prompt[1:], scores, strict=True)
                ]
            choices.append(choice)
        self.answer(200, {"choices": choices[::-1], "usage": self.usage(prompt)})

    def usage(self, prompt):
        """What vLLM tells when it is asked for the details: how much of the prompt it had."""
        if "cache" not in self.server.features:
            return None
        known = [np.cumprod([a == b for a, b in zip(each, prompt)]).sum()  # noqa: B905
                 for each in self.server.read]  # fmt: skip
        self.server.read.append(prompt)
        cached = min(int(max(known, default=0)), len(prompt) - 1)
        return {"prompt_tokens_details": {"cached_tokens": cached}}

    def chat(self, body):
        prompt = self.server.engine.encode(body["messages"][-1]["content"])
        (sample,) = self.sampled(body, prompt)
        found = {
            "choices": [
                {
                    "message": {"content": self.server.engine.decode(sample.ids)},
                    "finish_reason": "length" if sample.finish == "length" else "stop",
                }
            ]
        }
        if "usage" in self.server.features:
            found["usage"] = {"completion_tokens": len(sample.ids)}
        self.answer(200, found)

    def written(self, body):
        prompt = tuple(body["prompt"])
        (sample,) = self.sampled(body, prompt)
        likeliest = self.likeliest(body, prompt, sample.ids)
        for first in range(0, len(sample.ids), self.server.burst):
            ids = sample.ids[first : first + self.server.burst]
            last = first + len(ids) == len(sample.ids)
            reason = ("length" if sample.finish == "length" else "stop") if last else None
            yield {
                "choices": [
                    {
                        "index": 0, "text": self.server.engine.decode(ids),
                        "token_ids": ids, "finish_reason": reason,
                        "logprobs": {
                            "token_logprobs": sample.logprobs[first : first + len(ids)],
                            "top_logprobs": likeliest[first : first + len(ids)],
                        },
                    }
                ]
            }  # fmt: skip

    def spoken(self, body):
        (sample,) = self.sampled(body, self.server.engine.encode(body["messages"][-1]["content"]))
        for token in sample.ids:
            delta = {"content": self.server.engine.decode([token])}
            yield {"choices": [{"delta": delta, "finish_reason": None}]}
        reason = "length" if sample.finish == "length" else "stop"
        yield {"choices": [{"delta": {}, "finish_reason": reason}]}
        yield {"choices": [], "usage": {"completion_tokens": len(sample.ids)}}

    def stream(self, events):
        server = self.server
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            for place, event in enumerate(events):
                if place == server.torn:
                    break
                self.chunk(f"data: {json.dumps(event)}\n\n".encode())
                server.sent += 1
                time.sleep(server.pace)
            self.chunk(b"data: [DONE]\n\n")
            self.chunk(b"")
        except OSError:
            server.cut += 1
            self.close_connection = True

    def chunk(self, data):
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    def sampled(self, body, prompt):
        request = tt.Request(
            prompt=prompt, seed=body.get("seed", 0), n=body.get("n", 1),
            max_tokens=body["max_tokens"], temperature=body.get("temperature", 1.0),
            stop=tuple(body.get("stop") or ()), top_p=body.get("top_p", 1.0),
            top_k=body.get("top_k") or None,
        )  # fmt: skip
        return asyncio.run(self.server.engine.generate([request]))[0]

    def likeliest(self, body, prompt, ids):
        """Log-probabilities of the likeliest tokens at each place, and of the drawn one."""
        found = []
        for place, token in enumerate(ids):
            row = np.log(self.server.engine.process((*prompt, *ids[:place])))
            top = np.argsort(-row)[: body["logprobs"]]
            found.append({f"token_id:{i}": float(row[i]) for i in {*top.tolist(), token}})
        return found

    def answer(self, status, value, headers=()):
        data = json.dumps(value).encode()
        self.send_response(status)
        for name, text in headers:
            self.send_header(name, text)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


if __name__ == "__main__":
    Server(
        tt.FakeEngine(by_sums, ALPHABET), port=int(sys.argv[1]), delay=float(sys.argv[2])
    ).serve_forever()
