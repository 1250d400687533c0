"""One contract for every engine: the exact one, and a real transformer trained in a fixture."""

import asyncio
import math

import numpy as np
import pytest
from scipy.stats import chisquare

import meristem_testtime as tt

ALPHABET = "0123456789+=;."


def by_sums(ids):
    """An exact process with one likely symbol after each text."""
    weights = np.full(len(ALPHABET), 0.02)
    weights[(3 * sum(ids) + len(ids)) % len(ALPHABET)] += 1.0
    return weights / weights.sum()


@pytest.fixture(scope="session")
def fake():
    return tt.FakeEngine(by_sums, ALPHABET)


@pytest.fixture(scope="session")
def trained():
    """A transformer with one character a token, trained to add 0 or 1 to a digit."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    from meristem_testtime.hf import HFEngine

    vocabulary = {character: i for i, character in enumerate(ALPHABET)}
    raw = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="."))
    raw.pre_tokenizer = tokenizers.pre_tokenizers.Split("", "isolated")
    raw.decoder = tokenizers.decoders.Fuse()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=raw, eos_token=".")
    config = transformers.LlamaConfig(
        vocab_size=len(ALPHABET), hidden_size=64, intermediate_size=128, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=64,
        eos_token_id=len(ALPHABET) - 1, bos_token_id=None, pad_token_id=None,
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
    return HFEngine(model.eval(), tokenizer, name="sums", max_batch=16)


@pytest.fixture(params=["fake", "trained"])
def engine(request):
    return request.getfixturevalue(request.param)


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
    several = [request(engine, seed=s, temperature=1.5, max_tokens=8) for s in range(12)]
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
    assert differ == 0 or (differ <= 1 and not isinstance(engine, tt.FakeEngine))


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


def test_logprobs_are_the_models_own(engine):
    (samples,) = ask(engine, request(engine, n=4, temperature=0.7))
    prompt = engine.encode("3+4=")
    for each in samples:
        if isinstance(engine, tt.FakeEngine):
            path = [(*prompt, *each.ids[:i]) for i in range(len(each.ids))]
            exact = [
                math.log(engine.process(ids)[token])
                for ids, token in zip(path, each.ids, strict=True)
            ]
        else:
            exact = engine.logprobs(prompt, each.ids)
        assert each.logprobs == pytest.approx(exact, abs=2e-3)


def test_first_tokens_follow_the_probabilities(engine):
    (samples,) = ask(engine, request(engine, n=2000, max_tokens=1, temperature=1.0))
    prompt = engine.encode("3+4=")
    if isinstance(engine, tt.FakeEngine):
        exact = engine.process(prompt)
    else:
        exact = np.exp([engine.logprobs(prompt, [i])[0] for i in range(len(ALPHABET))])
    seen = np.bincount([each.ids[0] for each in samples], minlength=len(ALPHABET))
    common = exact * 2000 >= 5
    observed = [*seen[common], seen[~common].sum()]
    expected = [*(2000 * exact[common]), 2000 * exact[~common].sum()]
    if expected[-1] < 1e-9:
        observed, expected = observed[:-1], expected[:-1]
    expected = np.array(expected) * (sum(observed) / sum(expected))
    assert chisquare(observed, expected).pvalue > 1e-4


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


def test_the_trained_model_adds(trained):
    right = 0
    for a in range(10):
        for b in (0, 1):
            (each,) = ask(trained, request(trained, f"{a}+{b}=", temperature=0.0, max_tokens=1))[0]
            right += trained.decode(each.ids) == str((a + b) % 10)
    assert right >= 18, f"{right} of 20 sums"


def test_a_long_prompt_names_both_lengths(trained):
    with pytest.raises(ValueError, match=r"a prompt of 62 tokens and max_tokens 6 exceed .* of 64"):
        ask(trained, request(trained, "1" * 62))
