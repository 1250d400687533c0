"""Servers that fail: refused, slow, busy, broken, killed; nothing is lost, everything is named."""

import asyncio
import contextlib
import dataclasses
import email.utils
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import meristem_testtime as tt

http = pytest.importorskip("meristem_testtime.http")


@pytest.fixture(scope="session")
def quick(small_server):
    """Makes an engine for a server, with few retries and no patience."""

    def made(server, *, kind=http.OpenAIEngine, **options):
        words = (small_server.Characters(),) if kind is http.OpenAIEngine else ()
        return kind(server.url, "sums", *words, **{"timeout": 5, "retries": 2} | options)

    return made


def ask(engine, **options):
    request = tt.Request(
        prompt=engine.encode("3+4="), **{"seed": 1, "max_tokens": 4, "temperature": 1.0} | options
    )
    return asyncio.run(engine.generate([request]))[0]


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_server_is_asked_again(fake, small_server, quick, status):
    with small_server.Server(fake) as server, quick(server) as engine:
        server.faults = [(status, (("Retry-After", "0.05"),))] * 2
        assert ask(engine)[0].ids == ask(fake)[0].ids
        assert server.asked == 3


def test_retry_after_is_obeyed(fake, small_server, quick):
    with small_server.Server(fake) as server, quick(server) as engine:
        server.faults = [(429, (("Retry-After", "0.9"),))]
        start = time.monotonic()
        ask(engine)
        assert time.monotonic() - start >= 0.9
        server.faults = [(429, (("Retry-After", "3600"),))]
        with pytest.raises(tt.EngineError, match="asks to wait 3600 s, more than 60"):
            ask(engine)


def test_retry_after_reads_seconds_and_dates():
    from meristem_testtime._remote import retry_after

    assert retry_after("7") == 7
    assert retry_after("soon") is None is retry_after(None)
    assert 25 < retry_after(email.utils.formatdate(time.time() + 30, usegmt=True)) <= 30


def test_tries_are_bounded_and_the_error_says_so(fake, small_server, quick):
    with small_server.Server(fake) as server, quick(server, retries=1) as engine:
        server.faults = [(500, ())] * 9
        with pytest.raises(tt.EngineError, match="HTTP 500: a planted fault, after 2 tries; check"):
            ask(engine)
        assert server.asked == 2


@pytest.mark.parametrize("status", [400, 401, 404, 422])
def test_a_refusal_is_final(fake, small_server, quick, status):
    with small_server.Server(fake) as server, quick(server) as engine:
        server.faults = [(status, ())]
        with pytest.raises(tt.EngineError, match=f"HTTP {status}: a planted fault"):
            ask(engine)
        assert server.asked == 1


def test_a_slow_server_times_out(fake, small_server, quick):
    with (
        small_server.Server(fake, delay=0.6) as server,
        quick(server, timeout=0.1, retries=1) as engine,
        pytest.raises(tt.EngineError, match=r"no answer within 0.1 s, after 2 tries"),
    ):
        ask(engine)


def test_nobody_there():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    with (
        http.ChatEngine(url, "sums", retries=0) as engine,
        pytest.raises(tt.EngineError, match=r"ClientConnectorError.*check that the server runs"),
    ):
        ask(engine)


def test_an_address_without_scheme_is_refused():
    with pytest.raises(ValueError, match=r"url is 'localhost:8000'; it starts with http"):
        http.ChatEngine("localhost:8000", "sums")


@pytest.mark.parametrize("missing", ["token_ids", "logprobs"])
def test_a_server_that_shows_too_little_is_named(fake, small_server, quick, missing):
    features = {"token_ids", "logprobs"} - {missing}
    with (
        small_server.Server(fake, features=features) as server,
        quick(server) as engine,
        pytest.raises(tt.UnsupportedError, match=rf"openai:sums lacks .*'{missing}'; .*ChatEngine"),
    ):
        ask(engine)


@pytest.mark.parametrize("top_p", [1.0, 0.5])
def test_a_chat_samples_whole_solutions(fake, small_server, quick, top_p):
    with small_server.Server(fake) as server, quick(server, kind=http.ChatEngine) as engine:
        found = ask(engine, n=4, max_tokens=6, top_p=top_p)
        exact = ask(fake, n=4, max_tokens=6, top_p=top_p)
        assert (len({each.ids for each in exact}) == 1) == (top_p < 1)
        assert [engine.decode(each.ids) for each in found] == [fake.decode(e.ids) for e in exact]
        assert [len(each.ids) for each in found] == [len(each.ids) for each in exact]
        assert [each.finish for each in found] == [each.finish for each in exact]
        (result,) = tt.search_sync(
            engine, {"q": "1+1="}, tt.best_of_n(3), step=tt.Step(max_tokens=5, max_steps=1)
        )
        assert result.cost.tokens == sum(len(node.ids) for node in result.solutions)


def test_a_search_draws_among_the_likeliest(fake, small_server, quick):
    def texts(**limit):
        (found,) = tt.search_sync(
            fake, {"q": "1+1="}, tt.best_of_n(8), step=tt.Step(max_tokens=5, max_steps=1),
            temperature=2.0, **limit,
        )  # fmt: skip
        return {node.text for node in found.solutions}

    assert len(texts()) > 1
    assert len(texts(top_k=1)) == len(texts(top_p=0.2)) == 1
    with (
        small_server.Server(fake) as server,
        quick(server, kind=http.ChatEngine) as engine,
        pytest.raises(tt.UnsupportedError, match=r"chat:sums lacks .*'top_k'; use top_p, or an"),
    ):
        ask(engine, top_k=1)
    with (
        small_server.Server(fake) as server,
        quick(server, kind=http.ChatEngine) as engine,
        pytest.raises(tt.UnsupportedError, match=r"chat:sums lacks .*'confidence'; use hf"),
    ):
        ask(engine, confidence=tt.Confidence())


@pytest.mark.parametrize("burst", [1, 4])
def test_a_stream_is_left_where_its_confidence_falls(fake, small_server, quick, burst):
    asked = {"n": 8, "max_tokens": 60, "temperature": 2.0}
    asked["confidence"] = tt.Confidence(top=3, width=2, least=2.72)
    exact = ask(fake, **asked)
    assert "unsure" in {each.finish for each in exact}
    with small_server.Server(fake, pace=0.02) as server, quick(server) as engine:
        server.burst = burst
        found = ask(engine, **asked)
        limit = time.monotonic() + 5
        while not server.cut and time.monotonic() < limit:
            time.sleep(0.02)
    assert [(each.ids, each.finish) for each in found] == [(e.ids, e.finish) for e in exact]
    assert server.cut


def test_a_server_that_gives_too_few_of_the_likeliest_is_named(fake, small_server, quick):
    with (
        small_server.Server(fake) as server,
        quick(server) as engine,
        pytest.raises(tt.UnsupportedError, match=r"'confidence'; .* fewer than 20 each; ask for"),
    ):
        ask(engine, confidence=tt.Confidence(top=20))


def test_a_chat_answers_each_of_several_requests(fake, small_server, quick):
    with small_server.Server(fake) as server, quick(server, kind=http.ChatEngine) as engine:
        found, exact = (
            asyncio.run(
                each.generate(
                    [
                        tt.Request(prompt=each.encode(f"{i}+1="), seed=i, n=2, max_tokens=5)
                        for i in range(4)
                    ]
                )
            )
            for each in (engine, fake)
        )
    texts = [[engine.decode(each.ids) for each in group] for group in found]
    assert texts == [[fake.decode(each.ids) for each in group] for group in exact]


@pytest.mark.parametrize("algorithm", [tt.beam(4, 2), tt.revise(1)], ids=["beam", "revise"])
def test_a_chat_cannot_search(fake, small_server, quick, algorithm):
    with (
        small_server.Server(fake) as server,
        quick(server, kind=http.ChatEngine) as engine,
        pytest.raises(tt.UnsupportedError, match=r"chat:sums lacks .*'continue'; sample whole"),
    ):
        tt.search_sync(engine, {"q": "1+1="}, algorithm, step=tt.Step(max_tokens=5, max_steps=1))


def test_a_chat_that_counts_nothing_is_named(fake, small_server, quick):
    with (
        small_server.Server(fake, features=()) as server,
        quick(server, kind=http.ChatEngine) as engine,
        pytest.raises(tt.EngineError, match=r"chat:sums counts no tokens"),
    ):
        ask(engine)


@pytest.mark.parametrize("kind", [http.OpenAIEngine, http.ChatEngine])
def test_a_stop_closes_the_connections_of_what_still_runs(fake, small_server, quick, kind):
    asked = tt.Request(prompt=fake.encode("3+4="), seed=3, n=6, max_tokens=40, temperature=2.0)
    (whole,) = asyncio.run(fake.generate([asked]))
    with small_server.Server(fake, pace=0.05) as server, quick(server, kind=kind) as engine:
        request = dataclasses.replace(asked, prompt=engine.encode("3+4="))
        (found,) = asyncio.run(engine.generate([request], {0: lambda place, sample: True}))
        limit = time.monotonic() + 5
        aborted = [each for each in found if each.finish == "abort"]
        while server.cut < len(aborted) and time.monotonic() < limit:
            time.sleep(0.01)
        # one more where the last token has arrived and the end of the stream has not
        assert 1 <= len(aborted) <= server.cut < len(found)
        spent = sum(len(each.ids) for each in found)
        assert spent <= server.sent < sum(len(each.ids) for each in whole)
    for each, full in zip(found, whole, strict=True):
        assert fake.decode(full.ids).startswith(engine.decode(each.ids))
        if each.finish == "abort":
            assert len(each.ids) <= len(full.ids)
        else:
            assert (len(each.ids), each.finish) == (len(full.ids), full.finish)


@pytest.mark.parametrize("kind", [http.OpenAIEngine, http.ChatEngine])
def test_a_stream_that_ends_without_a_reason_is_named(fake, small_server, quick, kind):
    with small_server.Server(fake) as server, quick(server, kind=kind) as engine:
        server.torn = 2
        request = tt.Request(prompt=engine.encode("3+4="), seed=1, n=2, max_tokens=9)
        with pytest.raises(tt.EngineError, match=r"sums ended a stream without a finish_reason"):
            asyncio.run(engine.generate([request], {0: lambda place, sample: False}))


@given(text=st.text(max_size=80), count=st.integers(0, 30))
def test_pieces_hold_the_text(text, count):
    from meristem_testtime._chat import _pieces

    engine = object.__new__(http.ChatEngine)
    assert engine.decode(engine.encode(text)) == text
    data = text.encode()
    pieces = _pieces(data, max(count, bool(data)))
    assert len(pieces) == max(count, bool(data))
    assert engine.decode(pieces) == text


def test_a_server_killed_in_mid_run_loses_nothing(fake, small_server, tmp_path):
    """Half of the answers are in the journal when SIGKILL comes; the rest are asked once more."""
    questions = {f"q{i}": f"{i % 10}+{i // 10}=" for i in range(24)}
    step = tt.Step(stop=("=", ";"), max_tokens=4, max_steps=3)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    script = Path(__file__).with_name("openai_server.py")
    path = tmp_path / "journal.jsonl"

    @contextlib.contextmanager
    def running():
        words = [sys.executable, str(script), str(port), "0.03"]
        with subprocess.Popen(words) as process:
            try:
                yield process
            finally:
                process.send_signal(signal.SIGKILL)

    def search(retries):
        url = f"http://127.0.0.1:{port}/v1"
        with (
            http.OpenAIEngine(url, "sums", small_server.Characters(), retries=retries,
                              timeout=30, concurrency=4) as engine,
            tt.ReplayEngine(path, engine) as recorded,
        ):  # fmt: skip
            return tt.search_sync(recorded, questions, tt.beam(4, 2), step=step,
                                  guide=tt.confidence_guide())  # fmt: skip

    def lines():
        return path.read_bytes().count(b"\n") if path.exists() else 0

    def kill(process):
        while lines() < 20:
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)

    with running() as process:
        killer = threading.Thread(target=kill, args=(process,), daemon=True)
        killer.start()
        with pytest.raises(tt.EngineError, match=r"after .* tries; check that the server runs"):
            search_when_up(search, port, retries=1)
        killer.join()
    kept = lines()
    before = path.read_bytes()
    assert kept >= 20
    with running():
        resumed = search_when_up(search, port, retries=6)
    assert path.read_bytes().startswith(before)
    with tt.ReplayEngine(tmp_path / "other.jsonl", fake) as recorded:
        alone = tt.search_sync(recorded, questions, tt.beam(4, 2), step=step,
                               guide=tt.confidence_guide())  # fmt: skip
    for a, b in zip(resumed, alone, strict=True):
        assert [node.text for node in a.solutions] == [node.text for node in b.solutions]
        assert a.cost == b.cost
    asked = sum(each.cost.requests for each in alone)
    assert kept < lines() == len({key for line in read(path) for key in line["keys"]}) == asked


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def search_when_up(search, port, retries):
    limit = time.monotonic() + 60
    while time.monotonic() < limit:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            break
        time.sleep(0.05)
    return search(retries)
