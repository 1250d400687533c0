"""A server that is not ours and not vLLM's: `transformers serve`, for what it supports.

It takes chats only (its `/completions` reads text, not token ids), one sample a request, and seeds
one generator of the whole process: a seed decides a sample when nothing runs beside it.
"""

import asyncio
import json
import shutil

import numpy as np
import pytest
from scipy.stats import chisquare

import meristem_testtime as tt

pytestmark = pytest.mark.vllm  # in its environment: the server needs fastapi and openai


@pytest.fixture(scope="session")
def served_folder(trained_folder, tmp_path_factory):
    """The trained model with a chat template, that samples: the server asks generation_config."""
    folder = tmp_path_factory.mktemp("foreign") / "sums"
    shutil.copytree(trained_folder, folder)
    template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    (folder / "chat_template.jinja").write_text(template)
    path = folder / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"do_sample": True, "top_k": 0}))
    return folder


@pytest.fixture(scope="session")
def address(served_folder, serving):
    command = ["transformers", "serve", str(served_folder), "--device", "cpu"]
    with serving(command, {"HF_HUB_OFFLINE": "1"}) as url:
        yield url


@pytest.fixture(scope="session")
def chat(address, served_folder):
    """One request at a time."""
    from meristem_testtime.http import ChatEngine

    with ChatEngine(address, str(served_folder), concurrency=1, retries=0) as engine:
        yield engine


def ask(engine, *requests, watches=None):
    return asyncio.run(engine.generate(list(requests), watches or {}))


def request(engine, text="3+4=", **options):
    return tt.Request(prompt=engine.encode(text), **{"seed": 1, "max_tokens": 6} | options)


def texts(engine, groups):
    return [[engine.decode(each.ids).removesuffix(".") for each in group] for group in groups]


def test_greedy_texts_are_those_of_the_model(chat, trained):
    questions = [f"{a}+{b}=" for a in range(10) for b in (0, 1)]
    found, exact = (
        ask(each, *(request(each, text, temperature=0.0) for text in questions))
        for each in (chat, trained)
    )
    assert texts(chat, found) == texts(trained, exact)
    assert [len(group[0].ids) for group in found] == [len(group[0].ids) for group in exact]
    assert [group[0].finish for group in found] == [group[0].finish for group in exact]


def test_a_seed_decides_a_sample_that_is_alone(chat):
    several = [request(chat, seed=s, temperature=2.0, max_tokens=12) for s in range(12)]
    first, again = ask(chat, *several), ask(chat, *several)
    assert first == again
    assert len({group[0].ids for group in first}) > 6
    (together,) = ask(chat, request(chat, seed=0, n=12, temperature=2.0, max_tokens=12))
    assert together == [group[0] for group in first]


def test_length_ends_a_sample(chat):
    (samples,) = ask(chat, request(chat, n=30, max_tokens=2, temperature=2.0))
    assert {each.finish for each in samples} == {"end", "length"}
    for each in samples:
        assert len(each.ids) == 2 or (len(each.ids) == 1 and each.finish == "end")


def test_first_tokens_follow_the_probabilities(chat, trained):
    draws, prompt = 400, trained.encode("3+4=")
    (samples,) = ask(chat, request(chat, n=draws, max_tokens=1, temperature=1.5))
    scores = asyncio.run(trained.logprobs([(prompt, (i,)) for i in range(14)]))
    exact = np.exp(np.array(scores)[:, 0] / 1.5)
    exact /= exact.sum()
    symbols = [chat.decode(each.ids) or "." for each in samples]
    seen = np.bincount([trained.encode(each)[0] for each in symbols], minlength=14)
    common = exact * draws >= 5
    observed, expected = ([*x[common], x[~common].sum()] for x in (seen, exact * draws))
    assert chisquare(observed, expected).pvalue > 1e-4


def test_a_watch_aborts_what_runs(address, served_folder):
    """Several tries: a busy client may hear of the first end when all samples have ended."""
    from meristem_testtime.http import ChatEngine

    with ChatEngine(address, str(served_folder), concurrency=12, retries=0) as engine:
        for seed in range(0, 100, 20):
            asked = request(engine, seed=seed, n=12, max_tokens=200, temperature=8.0)
            (cut,) = ask(engine, asked, watches={0: lambda place, sample: True})
            aborted = [each for each in cut if each.finish == "abort"]
            assert len(aborted) < 12
            assert all(len(each.ids) <= 200 for each in cut)
            assert len(ask(engine, asked)[0]) == 12
            if aborted:
                return
        pytest.fail("no sample was aborted")


def test_a_search_of_whole_solutions_is_recorded(chat, tmp_path):
    step = tt.Step(max_tokens=8, max_steps=1)
    questions = {"q": "3+4=", "r": "2+1="}
    with tt.ReplayEngine(tmp_path / "journal.jsonl", chat) as recorded:
        first, again = (
            tt.search_sync(recorded, questions, tt.best_of_n(4), step=step) for _ in range(2)
        )
    for a, b in zip(first, again, strict=True):
        assert [node.text for node in a.solutions] == [node.text for node in b.solutions]
        assert a.cost == b.cost


def test_what_it_lacks_is_named(chat, address, served_folder, trained):
    from meristem_testtime.http import ChatEngine, OpenAIEngine

    model = str(served_folder)
    with (
        OpenAIEngine(address, model, trained.tokenizer, retries=0) as ids,
        ChatEngine(address, "another", retries=0) as another,
    ):
        prompt = ids.encode("3+4=")
        for call, error, complaint in [
            (lambda: ask(ids, request(ids)), tt.UnsupportedError, "'token_ids'; serve .* vLLM"),
            (
                lambda: ask(ids, request(ids), watches={0: lambda place, sample: True}),
                tt.UnsupportedError,
                "'token_ids'; serve .*ChatEngine .*HTTP 422: Unexpected fields",
            ),
            (
                lambda: asyncio.run(ids.logprobs([(prompt, (7,))])),
                tt.UnsupportedError,
                "'scores'; serve the model with vLLM",
            ),
            (
                lambda: asyncio.run(chat.logprobs([(prompt, (7,))])),
                tt.UnsupportedError,
                "'scores'; use http.OpenAIEngine",
            ),
            (lambda: ask(chat, request(chat, stop=(";",))), tt.UnsupportedError, "'stop'; sample"),
            (
                lambda: tt.search_sync(chat, {"q": "3+4="}, tt.beam(4, 2)),
                tt.UnsupportedError,
                "'continue'; sample whole solutions",
            ),
            (lambda: ask(another, request(another)), tt.EngineError, "HTTP 400: Server is pinned"),
        ]:
            with pytest.raises(error, match=complaint):
                call()
