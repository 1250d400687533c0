"""Laws of the kernel, the searches, resampling and stopping, on exactly known processes."""

import asyncio
import math
import signal
import subprocess
import sys
import time
from functools import cache
from types import MappingProxyType

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.special import betainc

import meristem_testtime as tt
from meristem_core import stream

ALPHABET = "ab;."
STEP = tt.Step(stop=(";",), max_tokens=3, max_steps=4)
QUESTIONS = {"one": "a", "two": "b", "three": "ab"}


@cache
def process(seed):
    @cache
    def probabilities(ids):
        return stream(seed, "process", *ids).dirichlet(np.ones(len(ALPHABET)))

    return probabilities


def uniform_steps(ids):
    """Three symbols, evenly; a solution is cut by the limit of steps."""
    return np.array([1 / 3, 1 / 3, 1 / 3, 0.0])


@cache
def hashed(question, text):
    return float(stream(0, "reward", question, text).random())


GUIDE = tt.reward_guide(hashed)
ALGORITHMS = {
    "best_of_n": tt.best_of_n(4),
    "beam": tt.beam(4, 2),
    "dvts": tt.dvts(4, 2),
    "rebase": tt.rebase(4),
    "bfs": tt.bfs(2, 2),
    "dfs": tt.dfs(2, 0.2, solutions=3),
    "best_first": tt.best_first(2, 2),
    "uct": tt.mcts(6, 2),
    "puct": tt.mcts(6, 2, tt.puct()),
    "rollouts": tt.mcts(4, 2, tt.puct(), rollouts=2, noise=0.25),
    "rest_mcts": tt.rest_mcts(4, 2),
    "particles": tt.particles(4),
    "annealed": tt.particles(4, threshold=0.9, anneal=1.0),
    "adaptive": tt.adaptive(tt.beta(0.8), 8, lambda text: text[:1] or None, batch=3),
    "first finished": tt.first_finished(4, 2),
}
each_algorithm = pytest.mark.parametrize("name", ALGORITHMS)


class Concurrent(tt.FakeEngine):
    """Answers calls as they come, in an order of its own."""

    concurrent = True

    async def generate(self, requests, watches=MappingProxyType({})):
        for _ in range(sum(r.seed for r in requests) % 5):
            await asyncio.sleep(0)
        return await super().generate(requests, watches)


def run(name, engine, questions=QUESTIONS, budget=tt.Budget(), seed=3):  # noqa: B008
    found = tt.search_sync(
        engine, questions, ALGORITHMS[name], guide=GUIDE, step=STEP, budget=budget, seed=seed
    )
    return {
        each.question: (
            [(node.text, node.address(), node.value) for node in each.solutions],
            each.weights,
            [(node.text, node.ids) for node in each.nodes],
            each.cost,
            each.exhausted,
            each.log_normaliser,
        )
        for each in found
    }


@each_algorithm
@given(seed=st.integers(0, 20), order=st.permutations(list(QUESTIONS)))
@settings(max_examples=15)
def test_batching_and_order_change_no_result(name, seed, order):
    together = run(name, tt.FakeEngine(process(seed), ALPHABET))
    turned = run(
        name, Concurrent(process(seed), ALPHABET), {each: QUESTIONS[each] for each in order}
    )
    alone = {}
    for each in order:
        alone |= run(name, tt.FakeEngine(process(seed), ALPHABET), {each: QUESTIONS[each]})
    assert together == turned == alone


@each_algorithm
@given(seed=st.integers(0, 20), tokens=st.integers(0, 40))
@settings(max_examples=15)
def test_budgets_hold_and_the_ledger_adds_up(name, seed, tokens):
    budget = tt.Budget(tokens=tokens)
    engine = tt.FakeEngine(process(seed), ALPHABET)
    begin = time.monotonic()
    results = tt.search_sync(
        engine, QUESTIONS, ALGORITHMS[name], guide=GUIDE, step=STEP, budget=budget
    )
    wall = time.monotonic() - begin
    for each in results:
        assert 0 < each.seconds < wall
        assert each.cost.tokens == sum(len(node.ids) for node in each.nodes)
        assert each.cost.samples == len(each.nodes)
        assert all(node.finished for node in each.solutions)
        assert all(weight > 0 for weight in each.weights)
        most = 4 * STEP.max_tokens * STEP.max_steps
        assert each.cost.tokens < tokens + most or tokens == each.cost.tokens == 0
        for node in each.nodes:
            assert node.text == engine.decode(node.path_ids())
            assert node.depth <= STEP.max_steps


@each_algorithm
def test_a_journal_cut_anywhere_resumes_to_the_same_result(name, tmp_path):
    path, questions = tmp_path / "journal.jsonl", {"one": "a", "two": "b"}
    with tt.ReplayEngine(path, tt.FakeEngine(process(1), ALPHABET)) as engine:
        wanted = run(name, engine, questions)
    data = path.read_bytes()
    for cut in {0, 1, len(data) // 3, len(data) // 2, len(data) - 1, len(data)}:
        path.write_bytes(data[:cut])
        behind = tt.FakeEngine(process(1), ALPHABET)
        with tt.ReplayEngine(path, behind) as engine:
            assert run(name, engine, questions) == wanted
        assert sorted(path.read_bytes().splitlines()) == sorted(data.splitlines())
        assert (behind.calls == 0) == (cut == len(data))


@given(seed=st.integers(0, 30), n=st.integers(1, 5))
def test_one_request_of_n_equals_n_requests(seed, n):
    engine = tt.FakeEngine(process(seed), ALPHABET)
    whole = tt.Request(prompt=(0,), seed=seed, n=n, max_tokens=6)
    singles = [tt.Request(prompt=(0,), seed=seed + i, max_tokens=6) for i in range(n)]
    (together,) = asyncio.run(engine.generate([whole]))
    apart = asyncio.run(engine.generate(singles))
    assert together == [group[0] for group in apart]


@given(seed=st.integers(0, 30))
def test_outcomes_are_a_distribution_and_logprobs_are_theirs(seed):
    engine = tt.FakeEngine(process(seed), ALPHABET)
    outcomes = dict(engine.outcomes((0,), 3))
    assert sum(outcomes.values()) == pytest.approx(1.0)
    ((sample,),) = asyncio.run(engine.generate([tt.Request(prompt=(0,), seed=seed, max_tokens=3)]))
    assert math.exp(sum(sample.logprobs)) == pytest.approx(outcomes[sample.ids])
    assert (sample.finish == "end") == (sample.ids[-1] == engine.end)


def test_samples_follow_the_process():
    engine = tt.FakeEngine(process(4), ALPHABET)
    exact = dict(engine.outcomes((0,), 1))
    request = tt.Request(prompt=(0,), seed=11, n=4000, max_tokens=1)
    (samples,) = asyncio.run(engine.generate([request]))
    for ids, chance in exact.items():
        share = np.mean([each.ids == ids for each in samples])
        assert abs(share - chance) < 5 * math.sqrt(chance * (1 - chance) / 4000)


@given(seed=st.integers(0, 40))
@settings(max_examples=20)
def test_a_wide_search_finds_the_best_of_its_whole_tree(seed):
    engine = tt.FakeEngine(process(seed), ALPHABET)
    wide = tt.search_sync(engine, {"q": "a"}, tt.bfs(10**6, 2), guide=GUIDE, step=STEP, seed=seed)
    deep = tt.search_sync(engine, {"q": "a"}, tt.dfs(2), guide=GUIDE, step=STEP, seed=seed)
    first = tt.search_sync(
        engine, {"q": "a"}, tt.best_first(2, 10**6), guide=GUIDE, step=STEP, seed=seed
    )
    texts = [sorted(node.text for node in each.solutions) for (each,) in (wide, deep, first)]
    assert texts[0] == texts[1] == texts[2]
    assert max(node.value for node in wide[0].solutions) == tt.best(deep[0].solutions).value
    narrow = tt.search_sync(engine, {"q": "a"}, tt.bfs(2, 2), guide=GUIDE, step=STEP, seed=seed)
    assert {node.text for node in narrow[0].solutions} <= set(texts[0])


@given(seed=st.integers(0, 40))
@settings(max_examples=20)
def test_best_first_pops_falling_values_when_values_fall_along_paths(seed):
    engine = tt.FakeEngine(process(seed), ALPHABET)
    falling = tt.reward_guide(lambda question, text: -float(len(text)))
    (found,) = tt.search_sync(
        engine, {"q": "a"}, tt.best_first(2, 10**6), guide=falling, step=STEP, seed=seed
    )
    values = [node.value for node in found.solutions]
    assert values == sorted(values, reverse=True)


@given(seed=st.integers(0, 40), n=st.integers(1, 5))
@settings(max_examples=20)
def test_beam_and_dvts_give_at_most_n_solutions_and_dvts_of_one_is_sampling(seed, n):
    engine = tt.FakeEngine(process(seed), ALPHABET)
    for algorithm in (tt.beam(n, 1), tt.dvts(n, 1), tt.rebase(n)):
        (found,) = tt.search_sync(engine, {"q": "a"}, algorithm, guide=GUIDE, step=STEP, seed=seed)
        assert len(found.solutions) == n
    (plain,) = tt.search_sync(engine, {"q": "a"}, tt.dvts(n, 1), step=STEP, seed=seed)
    assert len({node.path()[0].place for node in plain.solutions}) == n


@given(values=st.lists(st.floats(-3, 3), min_size=1, max_size=6), total=st.integers(0, 30))
def test_rebase_spends_exactly_its_slots(values, total):
    ranked = np.sort(np.array(values))[::-1].copy()
    assert tt.rebase_widths(ranked, total, 0.2).sum() == total
    even = tt.rebase_widths(np.zeros(ranked.size), total, 1.0)
    assert np.ptp(even) <= 1
    if ranked.size > 1 and ranked[0] - ranked[1] > 0.1:
        assert tt.rebase_widths(ranked, total, 1e-3)[0] == total


@given(seed=st.integers(0, 20), simulations=st.integers(1, 12))
@settings(max_examples=20)
def test_visits_of_leaves_never_exceed_simulations(seed, simulations):
    engine = tt.FakeEngine(process(seed), ALPHABET)
    for rule in (tt.uct(), tt.puct()):
        (found,) = tt.search_sync(
            engine, {"q": "a"}, tt.mcts(simulations, 2, rule), guide=GUIDE, step=STEP, seed=seed
        )
        assert sum(found.weights) <= simulations


@pytest.mark.parametrize("rule", [tt.uct(0.5), tt.puct()])
def test_tree_search_settles_on_the_best_leaf(rule):
    engine = tt.FakeEngine(uniform_steps, ALPHABET)
    step = tt.Step(stop=(), max_tokens=1, max_steps=2)
    good = tt.reward_guide(lambda question, text: float(text.startswith("a")))
    (found,) = tt.search_sync(
        engine, {"q": "a"}, tt.mcts(300, 4, rule), guide=good, step=step, seed=5
    )
    visits = sum(
        w for node, w in zip(found.solutions, found.weights, strict=True) if node.text[0] == "a"
    )
    assert visits / sum(found.weights) > 0.8


@pytest.mark.parametrize("rule", [tt.uct(0.5), tt.puct()])
def test_rollouts_see_what_a_guide_of_whole_solutions_cannot(rule):
    engine = tt.FakeEngine(uniform_steps, ALPHABET)
    step = tt.Step(stop=(), max_tokens=1, max_steps=4)
    whole = tt.reward_guide(lambda question, text: float(text[0] == "a" and len(text) == 4))

    def share(rollouts):
        right = visits = 0.0
        for seed in range(8):
            (found,) = tt.search_sync(
                engine, {"q": "a"}, tt.mcts(40, 6, rule, rollouts=rollouts), guide=whole,
                step=step, seed=seed,
            )  # fmt: skip
            weights = dict(zip(found.solutions, found.weights, strict=True))
            right += sum(w for node, w in weights.items() if node.text[0] == "a")
            visits += sum(weights.values())
        return right / visits

    assert share(2) > share(0) + 0.08


@given(seed=st.integers(0, 50))
@settings(max_examples=10)
def test_noise_moves_only_the_first_choice(seed):
    engine = tt.FakeEngine(process(seed), ALPHABET)

    def found(**options):
        (result,) = tt.search_sync(
            engine, {"q": "a"}, tt.mcts(3, 3, tt.puct(), **options), step=STEP, seed=seed
        )
        return [node.text for node in result.nodes]

    assert found(noise=0.0) == found()
    assert found(noise=1.0)[:3] == found()[:3]
    assert found(noise=1.0) == found(noise=1.0)


@pytest.mark.parametrize("target", ["potential", "emission"])
@pytest.mark.parametrize("method", ["systematic", "stratified", "multinomial", "residual"])
def test_the_normaliser_of_particles_is_unbiased(target, method):
    """Against the exact sum over all solutions of the process."""
    engine = tt.FakeEngine(process(7), ALPHABET)
    step = tt.Step(stop=(), max_tokens=1, max_steps=2)

    def reward(question, text):
        return 0.2 + 0.6 * hashed("", text)

    def odds(text):
        return reward("", text) / (1 - reward("", text))

    exact = 0.0
    for ids, chance in engine.outcomes((0,), 2):
        text = engine.decode(ids)
        parts = [text[: i + 1] for i in range(len(text))]
        weight = odds(text) if target == "potential" else math.prod(map(odds, parts))
        exact += chance * weight
    names = {f"q{i}": "a" for i in range(300)}
    found = tt.search_sync(
        engine, names, tt.particles(4, target=target, method=method, threshold=0.9),
        guide=tt.reward_guide(reward), step=step, temperature=1.0, seed=1,
    )  # fmt: skip
    z = np.exp([each.log_normaliser for each in found])
    error = z.std(ddof=1) / math.sqrt(z.size)
    assert abs(z.mean() - exact) < 4 * error, f"{z.mean()} +- {error}, exact {exact}"


@given(
    weights=st.lists(st.floats(0, 1), min_size=1, max_size=6).filter(lambda w: sum(w) > 0.01),
    n=st.integers(1, 9),
    method=st.sampled_from(["systematic", "stratified", "multinomial", "residual"]),
    seed=st.integers(0, 99),
)
@example(weights=[0.0, 1.0, 0.0], n=3, method="multinomial", seed=0)
def test_resampling_respects_its_weights(weights, n, method, seed):
    w = np.array(weights)
    with np.errstate(divide="ignore"):
        rows = tt.resample(np.log(w), n, method=method, rng=np.random.default_rng(seed))
    counts = np.bincount(rows, minlength=w.size)
    share = n * w / w.sum()
    assert counts.sum() == n
    assert (counts[w == 0] == 0).all()
    if method == "systematic":
        assert (np.abs(counts - share) < 1 + 1e-9).all()
    if method == "residual":
        assert (counts >= np.floor(share - 1e-9)).all()


@pytest.mark.parametrize("method", ["systematic", "stratified", "multinomial", "residual"])
def test_resampling_is_unbiased(method):
    rng, w = np.random.default_rng(0), np.array([0.5, 0.3, 0.15, 0.05])
    draws = [
        np.bincount(tt.resample(np.log(w), 3, method=method, rng=rng), minlength=4)
        for _ in range(4000)
    ]
    assert np.abs(np.mean(draws, 0) - 3 * w).max() < 0.06


counts = st.lists(st.integers(0, 12), min_size=1, max_size=4).filter(lambda c: max(c) > 0)


@given(a=st.integers(0, 30), b=st.integers(0, 30))
def test_the_beta_rule_is_the_incomplete_beta_function(a, b):
    a, b = max(a, b), min(a, b)
    wanted = 1 - betainc(a + 1, b + 1, 0.5)
    assert tt.leader_beta([b, a]) == pytest.approx(wanted, abs=1e-12)
    if a > 0:
        assert tt.leader_dirichlet([a, b]) == pytest.approx(wanted, abs=1e-10)


@given(c=counts)
@settings(max_examples=40)
def test_the_dirichlet_rule_agrees_with_draws_and_ignores_order(c):
    found = tt.leader_dirichlet(c)
    assert found == pytest.approx(tt.leader_dirichlet(c[::-1]), abs=1e-12)
    ranked = sorted((x for x in c if x > 0), reverse=True)
    ranked += [0] * (2 - len(ranked))
    p = np.random.default_rng(0).dirichlet(np.array(ranked) + 1.0, size=20_000)
    assert found == pytest.approx((p.argmax(1) == 0).mean(), abs=0.02)


@given(answers=st.lists(st.integers(0, 3), min_size=1, max_size=12))
def test_certain_never_changes_the_vote(answers):
    seen = {}
    for j, answer in enumerate(answers, 1):
        seen[answer] = seen.get(answer, 0) + 1
        if tt.certain(list(seen.values()), len(answers) - j):
            leader = max(seen, key=seen.get)
            full = {a: answers.count(a) for a in answers}
            assert [a for a in full if full[a] == max(full.values())] == [leader]
            return


@given(seed=st.integers(0, 40))
@settings(max_examples=20)
def test_adaptive_sampling_is_a_prefix_of_full_sampling(seed):
    engine = tt.FakeEngine(process(seed), ALPHABET)

    def answer(text):
        return text[:1]

    (full,) = tt.search_sync(engine, {"q": "a"}, tt.best_of_n(8), step=STEP, seed=seed)
    (some,) = tt.search_sync(
        engine, {"q": "a"}, tt.adaptive(tt.certain, 8, answer), step=STEP, seed=seed
    )
    texts = [node.text for node in some.solutions]
    assert texts == [node.text for node in full.solutions][: len(texts)]


def test_a_search_that_waits_shares_its_calls():
    engine = tt.FakeEngine(uniform_steps, ALPHABET)
    questions = {f"q{i}": "a" for i in range(20)}
    tt.search_sync(engine, questions, tt.beam(4, 2), step=STEP)
    assert engine.calls == STEP.max_steps


@pytest.mark.parametrize(
    "algorithm", [tt.beam(4, 2), tt.bfs(2, 3), tt.mcts(6), tt.rebase(4), tt.particles(4)]
)
def test_log_probabilities_are_only_read_where_they_are_needed(algorithm):
    engine = tt.FakeEngine(uniform_steps, ALPHABET)
    length = tt.reward_guide(lambda question, text: len(text) / 100)
    (full,), (bare,) = (
        tt.search_sync(engine, {"q": "a"}, algorithm, guide=length, step=STEP, logprobs=each)
        for each in (True, False)
    )
    assert [(n.ids, n.value) for n in full.nodes] == [(n.ids, n.value) for n in bare.nodes]
    assert all(node.logprobs for node in full.nodes)
    assert not any(node.logprobs for node in bare.nodes)
    pairs = [tt.step_pairs([each], margin=0.001) for each in (full, bare)]
    assert pairs[0] == pairs[1]
    for needy in ({"guide": tt.confidence_guide()}, {"algorithm": tt.mcts(6, rule=tt.puct())}):
        with pytest.raises(ValueError, match="logprobs=True"):
            tt.search_sync(
                engine, {"q": "a"}, **{"algorithm": algorithm, "guide": length} | needy,
                step=STEP, logprobs=False,
            )  # fmt: skip


def test_mistakes_are_explained():
    engine = tt.FakeEngine(uniform_steps, ALPHABET)
    nan = tt.reward_guide(lambda question, text: math.nan)
    for call, complaint in [
        (lambda: tt.search_sync(engine, {}, tt.beam(4)), "there is no question"),
        (lambda: tt.search_sync(engine, {"q": "z"}, tt.beam(4)), "'z' is not in the alphabet"),
        (lambda: tt.search_sync(engine, {"q": "a", "r": "a"}, tt.beam(4), guide=nan), "gave nan"),
        (lambda: tt.beam(5, 2), r"n \(5\) must be a multiple of width \(2\)"),
        (lambda: tt.particles(0), r"n \(0\)"),
        (lambda: tt.mcts(1, rollouts=-1), r"rollouts \(-1\) at least 0"),
        (lambda: tt.mcts(1, noise=1.5), r"noise \(1.5\) must lie in \[0, 1\]"),
        (lambda: tt.Request(prompt=(), seed=0, stop=("",)), "empty string"),
        (lambda: tt.Request(prompt=(), seed=0, top_p=0.0), r"top_p \(0.0\) must lie in \(0, 1\]"),
        (lambda: tt.Request(prompt=(), seed=0, top_p=math.nan), r"top_p \(nan\)"),
        (lambda: tt.Request(prompt=(), seed=0, top_k=0), r"top_k \(0\) must be at least 1"),
        (lambda: tt.FakeEngine(uniform_steps, "aa"), "different characters"),
        (lambda: tt.best([]), "no node to choose from"),
    ]:
        with pytest.raises(ValueError, match=complaint):
            call()


def test_a_failing_engine_stops_the_search_with_its_own_error():
    class Broken(tt.FakeEngine):
        max_batch = 1

        async def generate(self, requests, watches=MappingProxyType({})):
            self.calls += 1
            raise ConnectionError("the server is gone")

    engine = Broken(uniform_steps, ALPHABET)
    with pytest.raises(ConnectionError, match="the server is gone"):
        tt.search_sync(engine, QUESTIONS, tt.beam(4))
    assert engine.calls == 1


RUN = """
import os, signal, sys
from pathlib import Path
import numpy as np
import meristem_testtime as tt
from meristem_core import stream, write_json

folder, left = Path(sys.argv[1]), int(sys.argv[2])

def process(ids):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return stream(0, "process", *ids).dirichlet([3, 3, 3, 1])

with tt.ReplayEngine(folder / "journal.jsonl", tt.FakeEngine(process, "ab;.")) as engine:
    guide = tt.reward_guide(lambda question, text: float(stream(1, text).random()))
    found = tt.search_sync(engine, {f"q{i}": "ab" for i in range(8)}, tt.mcts(12, 2), guide=guide,
                           step=tt.Step(stop=(";",), max_tokens=4, max_steps=6))
write_json(folder / "result.json", [
    [each.question, [node.text for node in each.solutions], each.weights, each.cost]
    for each in found
])
"""


@pytest.mark.parametrize("token", [20, 150])
def test_a_search_killed_at_a_token_resumes_bit_for_bit(tmp_path, token):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder, dies_at, code in (
        (whole, 0, 0),
        (killed, token, -signal.SIGKILL),
        (killed, 0, 0),
    ):
        folder.mkdir(exist_ok=True)
        words = [sys.executable, "-c", RUN, str(folder), str(dies_at)]
        assert subprocess.run(words, check=False).returncode == code
    for name in ("result.json", "journal.jsonl"):
        assert (whole / name).read_bytes() == (killed / name).read_bytes()
