"""The command on a real vLLM, in process and behind `vllm serve`, killed and resumed."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]

QUESTIONS, N, REVISIONS = 150, 4, 1
KEPT = 10  # answers in the journal before something is killed
PATIENCE = 400  # seconds for a start and a run


@pytest.fixture(autouse=True)
def small_vllm(monkeypatch):
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", "nobind")


@pytest.fixture
def digits(tmp_path):
    path = tmp_path / "digits.jsonl"
    lines = [{"id": i, "question": f"{i}+{i}", "answer": str(i)} for i in range(QUESTIONS)]
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return path


@contextlib.contextmanager
def started(*command):
    """A process with its children; all are killed in the end."""
    with subprocess.Popen([*map(str, command)], start_new_session=True) as process:
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


@contextlib.contextmanager
def served(folder, port):
    """A running `vllm serve` of the model in `folder`."""
    program = Path(sys.executable).with_name("vllm")
    with started(
        program, "serve", folder, "--served-model-name", "digits", "--host", "127.0.0.1",
        "--port", port, "--dtype", "float32", "--enforce-eager",
    ) as process:  # fmt: skip
        wait(lambda: answers(port), process)
        yield process


def answers(port):
    with contextlib.suppress(OSError):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
        return True
    return False


def wait(happened, process):
    limit = time.monotonic() + PATIENCE
    while not happened():
        assert process.poll() is None, "it ended"
        assert time.monotonic() < limit, "it took too long"
        time.sleep(0.005)


def command(questions, out, *words):
    return [
        sys.executable, "-m", "meristem_deliberate", questions, "--out", out, "--n", N,
        "--kind", "number", "--prompt", "{question}", "--temperature", "1", *words,
    ]  # fmt: skip


def lines(out):
    path = out / "samples.jsonl"
    return path.read_bytes().splitlines(keepends=True) if path.exists() else []


def check(out, kept):
    """All samples are there, the kept ones untouched, and each was asked for once."""
    cost = json.loads((out / "result.json").read_text())["config"]["cost"]
    assert cost["samples"] == QUESTIONS * (N + 1 + REVISIONS)
    found = lines(out)
    assert found[: len(kept)] == kept
    keys = [key for line in found for key in json.loads(line)["keys"]]
    assert len(set(keys)) == len(keys)


def test_vllm_in_process_resumes_after_a_kill(saved_model, digits, tmp_path):
    out = tmp_path / "run"
    words = command(digits, out, "--engine", f"vllm:{saved_model}", "--max-tokens", "50",
                    "--revise", REVISIONS)  # fmt: skip
    with started(*words) as process:
        wait(lambda: len(lines(out)) >= KEPT, process)
        process.kill()
        assert process.wait(60) == -signal.SIGKILL
    kept = [line for line in lines(out) if line.endswith(b"\n")]
    assert KEPT <= len(kept) < QUESTIONS
    with started(*words) as process:
        assert process.wait(PATIENCE) == 0
    check(out, kept)


def test_vllm_serve_is_killed_and_the_command_goes_on(saved_model, digits, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    out, server = tmp_path / "run", ("--engine", f"openai:http://127.0.0.1:{port}/v1")
    server = (*server, "--model", "digits", "--max-tokens", "50")
    words = command(digits, out, *server, "--tokenizer", saved_model, "--revise", REVISIONS)
    with served(saved_model, port) as serving, started(*words) as process:
        wait(lambda: len(lines(out)) >= KEPT, process)
        os.killpg(serving.pid, signal.SIGKILL)
        assert process.wait(PATIENCE) == 3
    kept = lines(out)
    assert KEPT <= len(kept) < QUESTIONS
    with served(saved_model, port):
        with started(*words) as process:
            assert process.wait(PATIENCE) == 0
        check(out, kept)
        chat = tmp_path / "chat"
        with started(*command(digits, chat, *server)) as process:
            assert process.wait(PATIENCE) == 0
    assert json.loads((chat / "result.json").read_text())["config"]["cost"]["samples"] == (
        QUESTIONS * N
    )
