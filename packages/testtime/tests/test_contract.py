"""One contract for every engine.

Exact probabilities; a real transformer trained in a fixture; a small server on loopback; and with
the marker `vllm` the same transformer in vLLM, in process and behind `vllm serve`.
"""

import asyncio
import os
import time
import urllib.request
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import chisquare

import meristem_testtime as tt

VLLM = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
BLOCK = 32  # tokens that vLLM caches together
VLLM_OPTIONS = {
    "dtype": "float32", "enforce_eager": True, "max_model_len": 64, "block_size": BLOCK,
}  # fmt: skip
SYMBOLS = 14  # tokens of the model


@pytest.fixture(scope="session")
def served(fake, small_server):
    http = pytest.importorskip("meristem_testtime.http")
    with (
        small_server.Server(fake, pace=0.003) as server,
        http.OpenAIEngine(server.url, "sums", small_server.Characters(), timeout=60) as engine,
    ):
        yield engine


@pytest.fixture(scope="session")
def vllm(trained_folder):
    from meristem_testtime.vllm import VLLMEngine

    os.environ.update(VLLM)
    with VLLMEngine(str(trained_folder), options=VLLM_OPTIONS, name="sums") as engine:
        yield engine


@pytest.fixture(scope="session")
def vllm_serve(trained_folder, trained, serving):
    from meristem_testtime.http import OpenAIEngine

    command = [
        "vllm", "serve", str(trained_folder), "--served-model-name", "sums", "--dtype", "float32",
        "--enforce-eager", "--max-model-len", "64", "--block-size", str(BLOCK),
        "--enable-prompt-tokens-details",
    ]  # fmt: skip
    with (
        serving(command, VLLM) as url,
        OpenAIEngine(url, "sums", trained.tokenizer, timeout=120) as engine,
    ):
        yield engine


ENGINES = [
    "fake",
    "trained",
    "served",
    pytest.param("vllm", marks=pytest.mark.vllm),
    pytest.param("vllm_serve", marks=pytest.mark.vllm),
]


@pytest.fixture(params=ENGINES)
def engine(request):
    return request.getfixturevalue(request.param)


@pytest.fixture
def reference(request, engine):
    """The engine whose log-probabilities `engine` must have."""
    exact = engine is request.getfixturevalue("fake") or (
        engine.identity == "openai:sums" and ("served" in request.node.callspec.id)
    )
    return request.getfixturevalue("fake" if exact else "trained")


def ask(engine, *requests):
    return asyncio.run(engine.generate(list(requests)))


def request(engine, text="3+4=", **options):
    return tt.Request(prompt=engine.encode(text), **{"seed": 1, "max_tokens": 6} | options)


def test_text_survives_the_tokens(engine):
    assert engine.decode(engine.encode("12+3=;")) == "12+3=;"


def test_greedy_repeats_and_ignores_the_seed(engine):
    first, second = ask(
        engine, request(engine, temperature=0.0), request(engine, temperature=0.0, seed=9)
    )
    assert first[0].ids == second[0].ids


def test_seeds_decide_the_sample(engine):
    several = [request(engine, seed=s, temperature=2.0, max_tokens=8) for s in range(40)]
    first, again = ask(engine, *several), ask(engine, *several)
    assert [g[0].ids for g in first] == [g[0].ids for g in again]
    assert len({g[0].ids for g in first}) > 1


def test_one_request_of_n_equals_n_requests(engine):
    (together,) = ask(engine, request(engine, n=8))
    apart = ask(engine, *(request(engine, seed=1 + i) for i in range(8)))
    assert [each.ids for each in together] == [group[0].ids for group in apart]


def test_many_mixed_requests_equal_one_by_one(engine):
    several = [
        request(engine, f"{i % 10}+{'1' * (i % 7 + 1)}=", seed=i, max_tokens=1 + i % 6)
        for i in range(64)
    ]
    together = ask(engine, *several)
    alone = [ask(engine, each)[0] for each in several]
    differ = sum(a[0].ids != b[0].ids for a, b in zip(together, alone, strict=True))
    assert differ == 0 or (differ <= 1 and not isinstance(engine, tt.FakeEngine)), differ


def test_length_ends_a_sample(engine):
    (samples,) = ask(engine, request(engine, n=20, max_tokens=1, temperature=1.0))
    for each in samples:
        assert len(each.ids) == len(each.logprobs) == 1
        assert each.finish == ("end" if engine.decode(each.ids) in ("", ".") else "length")


def test_a_stop_string_is_kept_and_ends_the_sample(engine):
    (samples,) = ask(engine, request(engine, n=30, max_tokens=12, stop=(";",), temperature=1.0))
    ends = {each.finish for each in samples}
    assert "stop" in ends
    for each in samples:
        text = engine.decode(each.ids)
        assert (each.finish == "stop") == text.endswith(";")
        assert text.count(";") == (each.finish == "stop")


def test_logprobs_are_the_models_own(engine, reference):
    (samples,) = ask(engine, request(engine, n=4, temperature=0.7))
    prompt = engine.encode("3+4=")
    pairs = [(prompt, each.ids) for each in samples]
    exact = asyncio.run(reference.logprobs(pairs))
    for each, found, expected in zip(
        samples, asyncio.run(engine.logprobs(pairs)), exact, strict=True
    ):
        assert each.logprobs == pytest.approx(expected, abs=2e-3)
        assert found == pytest.approx(expected, abs=2e-3)


def test_samples_are_the_same_without_log_probabilities(engine):
    asked = request(engine, n=6, max_tokens=8, temperature=1.5, stop=(";",))
    bare = replace(asked, logprobs=False)
    confident = replace(bare, confidence=tt.Confidence(top=2))
    (full,), (plain,), (sure,) = ask(engine, asked), ask(engine, bare), ask(engine, confident)
    assert [(e.ids, e.finish) for e in full] == [(e.ids, e.finish) for e in plain]
    assert {each.logprobs for each in (*plain, *sure)} == {()}
    assert [len(each.confidence) for each in sure] == [len(each.ids) for each in full]


def test_first_tokens_follow_the_probabilities(engine, reference):
    (samples,) = ask(engine, request(engine, n=2000, max_tokens=1, temperature=1.0))
    prompt = engine.encode("3+4=")
    found = asyncio.run(reference.logprobs([(prompt, (i,)) for i in range(SYMBOLS)]))
    exact = np.exp([each[0] for each in found])
    seen = np.bincount([each.ids[0] for each in samples], minlength=SYMBOLS)
    common = exact * 2000 >= 5
    observed = [*seen[common], seen[~common].sum()]
    expected = [*(2000 * exact[common]), 2000 * exact[~common].sum()]
    if expected[-1] < 1e-9:
        observed, expected = observed[:-1], expected[:-1]
    expected = np.array(expected) * (sum(observed) / sum(expected))
    assert chisquare(observed, expected).pvalue > 1e-4


@pytest.mark.parametrize("limit", ["top_k", "top_p"])
def test_a_limit_leaves_the_likeliest_tokens_in_their_proportion(engine, reference, limit):
    """At the border of 3 tokens, or of the one that is apart where the others are tied."""
    prompt = engine.encode("3+4=")
    found = asyncio.run(reference.logprobs([(prompt, (i,)) for i in range(SYMBOLS)]))
    scaled = np.exp(np.array(found)[:, 0] / 2)
    order, chance = np.argsort(-scaled), np.sort(scaled / scaled.sum())[::-1]
    count = 3 if chance[2] > chance[3] * 1.01 else 1
    middle = float(chance[: count - 1].sum() + chance[count - 1] / 2)
    options = {"top_k": count} if limit == "top_k" else {"top_p": middle}
    (samples,) = ask(
        engine, request(engine, n=1000, max_tokens=1, temperature=2.0, seed=7, **options)
    )
    seen = np.bincount([each.ids[0] for each in samples], minlength=SYMBOLS)[order]
    assert seen[count:].sum() == 0
    if count > 1:
        expected = 1000 * chance[:count] / chance[:count].sum()
        assert chisquare(seen[:count], expected).pvalue > 1e-4
    assert [each.logprobs[0] for each in samples[:5]] == pytest.approx(
        [found[each.ids[0]][0] for each in samples[:5]], abs=2e-3
    )


def test_confidence_is_that_of_the_likeliest_tokens(engine, reference):
    asked = request(engine, n=4, temperature=1.5, confidence=tt.Confidence(top=3))
    (samples,), (plain,) = ask(engine, asked), ask(engine, replace(asked, confidence=None))
    for each, same in zip(samples, plain, strict=True):
        assert (each.ids, each.finish, same.confidence) == (same.ids, same.finish, ())
        paths = [asked.prompt + each.ids[:i] for i in range(len(each.ids))]
        rows = asyncio.run(reference.logprobs([(p, (i,)) for p in paths for i in range(SYMBOLS)]))
        likeliest = np.sort(np.array(rows).reshape(len(paths), SYMBOLS))[:, -3:]
        expected = tt.token_confidence(likeliest)
        assert each.confidence == pytest.approx(expected.tolist(), abs=2e-3)


def test_a_sample_ends_where_its_confidence_falls(engine):
    """With the first full window below, and with nothing that a server sent after it."""
    width, watching = 2, tt.Confidence(top=3, width=2)
    asked = request(engine, n=24, seed=70, max_tokens=30, temperature=2.0, confidence=watching)
    (whole,) = ask(engine, asked)
    means = [tt.window_means(np.array(each.confidence), width) for each in whole]
    least = middle([each.min() for each in means])
    (cut,) = ask(engine, replace(asked, confidence=replace(watching, least=least)))
    for each, full, mean in zip(cut, whole, means, strict=True):
        below = np.flatnonzero(mean < least) + width
        falls = len(full.ids) >= width and below.size > 0
        length = below[0] if falls else len(full.ids)
        early = falls and (length < len(full.ids) or full.finish == "length")
        assert each.ids == full.ids[:length]
        assert len(each.ids) == len(each.logprobs) == len(each.confidence)
        assert each.finish == ("unsure" if early else full.finish)
    assert {each.finish for each in cut} > {"unsure"}
    (beside,) = asyncio.run(engine.generate([asked], {0: lambda place, sample: False}))
    assert [each.ids for each in beside] == [each.ids for each in whole]


def middle(values):
    """The middle of the widest gap in the lower half, so that rounding moves no value across."""
    ordered = np.sort(values)[: len(values) // 2]
    gap = np.diff(ordered).argmax()
    return float(ordered[gap : gap + 2].mean())


def test_deepconf_resumes(engine, tmp_path):
    options = {"step": tt.Step(max_tokens=30, max_steps=1), "temperature": 2.0}
    confident = tt.deepconf(16, warmup=6, keep=0.5, width=2, top=3)
    path = tmp_path / "journal.jsonl"
    found, again = (recorded(path, engine, {"q": "3+4="}, confident, 3, options) for _ in range(2))
    assert [(n.ids, n.confidence) for n in found.nodes] == [
        (n.ids, n.confidence) for n in again.nodes
    ]
    assert (found.weights, found.cost) == (again.weights, again.cost)
    assert any(node.truncated and not node.finished for node in found.nodes)


def test_a_path_continues_by_its_ids(engine, reference):
    ((first,),) = ask(engine, request(engine, max_tokens=2, temperature=1.0))
    path = (*engine.encode("3+4="), *first.ids)
    ((more,),) = ask(engine, tt.Request(prompt=path, seed=5, max_tokens=3))
    (exact,) = asyncio.run(reference.logprobs([(path, more.ids)]))
    assert more.logprobs == pytest.approx(exact, abs=2e-3)


def test_a_cancelled_request_leaves_the_others_unharmed(engine):
    several = [request(engine, seed=s, n=4, max_tokens=40, temperature=1.5) for s in range(4)]

    async def cancelled():
        tasks = [asyncio.ensure_future(engine.generate([each])) for each in several]
        await asyncio.sleep(0)
        tasks[1].cancel()
        return await asyncio.gather(*tasks, return_exceptions=True)

    found = asyncio.run(cancelled())
    assert isinstance(found[1], asyncio.CancelledError) == engine.concurrent
    for place in (0, 2, 3):
        assert [e.ids for e in found[place][0]] == [e.ids for e in ask(engine, several[place])[0]]


def test_a_watch_aborts_the_samples_that_run(engine):
    """What was drawn until then is the beginning of the whole samples; neighbours are whole.

    A server may have sent everything before a busy client hears of the first end: several tries.
    """
    for seed in (50, 150, 250, 350, 450):
        several = [
            request(engine, seed=s, n=24, max_tokens=56, temperature=2.0) for s in (seed, seed + 40)
        ]
        whole = ask(engine, *several)
        (cut, beside) = asyncio.run(engine.generate(several, {0: lambda place, sample: True}))
        assert [each.ids for each in beside] == [each.ids for each in whole[1]]
        assert any(each.finish != "abort" for each in cut)
        for each, full in zip(cut, whole[0], strict=True):
            assert each.ids == full.ids[: len(each.ids)]
            assert len(each.ids) == len(each.logprobs)
            assert each.finish in ("abort", full.finish)
        if total(cut) < total(whole[0]) / 2:
            break
    else:
        pytest.fail(f"{total(cut)} of {total(whole[0])} tokens were drawn")


def test_a_stop_rule_saves_tokens_and_books_what_was_spent(engine, tmp_path):
    options = {"step": tt.Step(max_tokens=56, max_steps=1), "temperature": 2.0}
    questions = {"q": "3+4="}
    once = tt.adaptive(lambda counts, remaining: sum(counts) >= 1, 24, lambda text: "", batch=24)
    for seed in range(5):
        (whole,) = tt.search_sync(engine, questions, tt.best_of_n(24), seed=seed, **options)
        path = tmp_path / f"{seed}.jsonl"
        found, again = (recorded(path, engine, questions, once, seed, options) for _ in range(2))
        assert [node.ids for node in found.nodes] == [node.ids for node in again.nodes]
        assert [node.ids for node in found.solutions] == [whole.nodes[0].ids]
        assert found.cost == again.cost
        assert found.cost.tokens == total(found.nodes) <= total(whole.nodes)
        if any(node.truncated and not node.finished for node in found.nodes):
            assert found.cost.tokens < total(whole.nodes)
            break
    else:
        pytest.fail("no sample was aborted")


def recorded(path, engine, questions, algorithm, seed, options):
    with tt.ReplayEngine(path, engine) as journal:
        return tt.search_sync(journal, questions, algorithm, seed=seed, **options)[0]


@pytest.mark.vllm
def test_what_a_server_computed_is_what_was_booked(vllm_serve):
    """Up to the steps that were under way when the connections were closed; the best of 5 tries."""
    url = vllm_serve._transport.url.removesuffix("/v1") + "/metrics"

    def count(name):
        with urllib.request.urlopen(url, timeout=30) as answer:
            lines = answer.read().decode().splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name + "{"))

    unbooked = []
    for seed in (50, 150, 250, 350, 450):
        before = count("vllm:generation_tokens_total")
        asked = request(vllm_serve, seed=seed, n=24, max_tokens=56, temperature=2.0)
        (cut,) = asyncio.run(vllm_serve.generate([asked], {0: lambda place, sample: True}))
        limit = time.monotonic() + 20
        while count("vllm:num_requests_running") and time.monotonic() < limit:
            time.sleep(0.05)
        computed = count("vllm:generation_tokens_total") - before
        assert computed >= total(cut)
        if any(each.finish == "abort" for each in cut):
            unbooked.append(computed - total(cut))
    assert min(unbooked) <= 5 * 24, unbooked


def total(samples):
    return sum(len(each.ids) for each in samples)


def test_a_search_runs_and_resumes(engine, tmp_path):
    step = tt.Step(stop=("=", ";"), max_tokens=4, max_steps=3)
    questions = {"q": "3+4=", "r": "2+2="}
    path = tmp_path / "journal.jsonl"
    with tt.ReplayEngine(path, engine) as recorded:
        first = tt.search_sync(recorded, questions, tt.beam(4, 2), step=step,
                               guide=tt.confidence_guide())  # fmt: skip
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with tt.ReplayEngine(path, engine) as recorded:
        again = tt.search_sync(recorded, questions, tt.beam(4, 2), step=step,
                               guide=tt.confidence_guide())  # fmt: skip
    for a, b in zip(first, again, strict=True):
        assert [node.text for node in a.solutions] == [node.text for node in b.solutions]
        assert a.cost == b.cost


def test_prompt_tokens_that_were_read_before_are_counted(engine, request):
    asked = tt.Request(prompt=engine.encode("7+1=" * 10), seed=1, n=2, max_tokens=1)
    ask(engine, asked)
    (again,) = ask(engine, asked)
    (result,) = tt.search_sync(
        engine, {"q": "7+1=" * 10}, tt.beam(4, 2), guide=tt.confidence_guide(),
        step=tt.Step(stop=("=", ";"), max_tokens=4, max_steps=3),
    )  # fmt: skip
    if request.node.callspec.params["engine"] in ("fake", "trained"):  # which keep nothing
        assert [each.cached for each in again] == [None, None]
        assert result.cached_tokens == 0
    else:
        assert [BLOCK <= each.cached < 40 for each in again] == [True, True]
        assert BLOCK <= result.cached_tokens < result.cost.prompt_tokens
    assert result == replace(result, cached_tokens=7, seconds=0.5)


def test_the_trained_model_adds(trained):
    right = 0
    for a in range(10):
        for b in (0, 1):
            (each,) = ask(trained, request(trained, f"{a}+{b}=", temperature=0.0, max_tokens=1))[0]
            right += trained.decode(each.ids) == str((a + b) % 10)
    assert right >= 18, f"{right} of 20 sums"


def test_a_long_prompt_names_both_lengths(engine):
    if isinstance(engine, tt.FakeEngine):
        pytest.skip("has no limit")
    with pytest.raises((ValueError, tt.EngineError), match=r"62 tokens and (max_tokens )?6 "):
        ask(engine, request(engine, "1" * 62))
