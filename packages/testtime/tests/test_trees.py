"""ReST-MCTS*, annealed particles, equal siblings and guides, against slow second ways."""

import math
from collections import Counter
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import meristem_testtime as tt
from meristem_core import stream

ALPHABET = "ab;."
SMALL = tt.Step(stop=(), max_tokens=1, max_steps=3)


def process(seed):
    @cache
    def probabilities(ids):
        return stream(seed, "process", *ids).dirichlet(np.ones(len(ALPHABET)))

    return probabilities


def uniform(ids):
    return np.array([1 / 3, 1 / 3, 1 / 3, 0.0])


@cache
def hashed(question, text):
    return float(stream(0, "reward", question, text).random())


def searched(algorithm, seed=0, process_of=process, reward=hashed, step=SMALL, **options):
    engine = tt.FakeEngine(process_of(seed), ALPHABET)
    (found,) = tt.search_sync(
        engine, {"q": "a"}, algorithm, guide=tt.reward_guide(reward), step=step, seed=seed,
        **options,
    )  # fmt: skip
    return found


def naive_rest(simulations, branch, c, alpha, forward, enough):
    """Tables keyed by addresses; V of an expanded node is computed anew, from below, when asked."""

    async def algorithm(task):
        own, visits, children, nodes = {}, Counter(), {}, {(): task.root}

        def value(at):
            below = children.get(at, [])
            total = sum(visits[child] for child in below)
            if not total:
                return own.get(at, 0.0)
            return sum(visits[child] * value(child) for child in below) / total

        def bound(parent, child):
            if visits[child] == 0:
                return value(child) + 1.0
            return value(child) + c * math.sqrt(2 * math.log(visits[parent]) / visits[child])

        for _ in range(simulations):
            at, walked = (), [()]
            while at in children:
                at = max(children[at], key=lambda child, parent=at: bound(parent, child))
                walked.append(at)
            if nodes[at].finished and own[at] >= enough:
                break
            if not nodes[at].finished:
                texts = set()
                children[at] = []
                for node in (await task.expand([nodes[at]], branch))[0]:
                    if node.text not in texts:
                        texts.add(node.text)
                        children[at].append(node.address())
                        nodes[node.address()], own[node.address()] = node, node.value
                chosen = max(children[at], key=own.get)
                best, node, steps = -math.inf, nodes[chosen], 0
                if node.finished:
                    best = node.value
                while steps < forward and not node.finished:
                    node = (await task.expand([node], 1))[0][0]
                    best, steps = max(best, node.value), steps + 1
                own[chosen] = (1 - alpha) * own[chosen] + alpha * best
                visits[chosen] += 1
            visits.update(walked)
        for at, node in nodes.items():
            if node.finished and visits[at]:
                task.finish(node, float(visits[at]))

    return algorithm


@given(
    seed=st.integers(0, 60),
    simulations=st.integers(1, 14),
    alpha=st.sampled_from([0.0, 0.5, 1.0]),
    forward=st.integers(1, 3),
    enough=st.sampled_from([0.6, 0.9, 2.0]),
)
@settings(max_examples=40)
def test_rest_mcts_equals_its_slow_definition(seed, simulations, alpha, forward, enough):
    ours = searched(
        tt.rest_mcts(simulations, 3, c=0.7, alpha=alpha, forward=forward, enough=enough), seed
    )
    slow = searched(naive_rest(simulations, 3, 0.7, alpha, forward, enough), seed)
    assert [node.address() for node in ours.nodes] == [node.address() for node in slow.nodes]
    weights = [
        {n.address(): w for n, w in zip(each.solutions, each.weights, strict=True)}
        for each in (ours, slow)
    ]
    assert weights[0] == weights[1]


def test_rest_mcts_finds_the_best_leaf_of_an_enumerable_tree_and_stops_there():
    """27 leaves, one of value 1; a value model that falls with the first wrong symbol."""

    def reward(question, text):
        right = next((i for i, (x, y) in enumerate(zip(text, "bab")) if x != y), len(text))  # noqa: B905
        return 1.0 if text == "bab" else 0.25 * right

    hits = spent = 0
    for seed in range(20):
        found = searched(tt.rest_mcts(60, 16), seed, process_of=lambda seed: uniform, reward=reward)
        hits += any(node.text == "bab" for node in found.solutions)
        spent += found.cost.samples
        assert sum(node.value == 1.0 and node.finished for node in found.solutions) <= 1
    assert hits == 20
    assert spent / 20 < 200, "it goes on after the solution"


@given(seed=st.integers(0, 40))
@settings(max_examples=20)
def test_equal_siblings_are_one_node_of_a_tree_search(seed):
    sure = searched(
        tt.mcts(9, 5, tt.puct()), seed, process_of=lambda seed: lambda ids: np.array([1.0, 0, 0, 0])
    )
    assert len(sure.solutions) == 1
    for algorithm in (
        tt.mcts(12, 4), tt.rest_mcts(12, 4), tt.bfs(9, 4), tt.dfs(4), tt.best_first(4, 99),
    ):  # fmt: skip
        found = searched(algorithm, seed)
        texts = [node.text for node in found.solutions]
        assert len(set(texts)) == len(texts)


def test_a_merged_child_has_the_priors_of_its_copies():
    """With equal values, one step deep, PUCT visits by the empirical shares of the samples."""
    skewed = np.array([0.0, 0.5, 0.5, 0.0])
    found = searched(
        tt.mcts(3000, 9, tt.puct()), 1, process_of=lambda seed: lambda ids: skewed,
        reward=lambda question, text: 0.5, step=tt.Step(stop=(), max_tokens=1, max_steps=1),
    )  # fmt: skip
    drawn = Counter(node.text for node in found.nodes)
    total = sum(found.weights)
    assert sum(drawn.values()) == 9
    for node, weight in zip(found.solutions, found.weights, strict=True):
        assert weight / total == pytest.approx(drawn[node.text] / 9, abs=0.01)


@pytest.mark.parametrize("target", [pytest.param("potential", marks=pytest.mark.slow), "emission"])
def test_annealed_particles_estimate_the_same_normaliser_and_law(target):
    """Against the exact sum over all solutions; and resampling is then milder."""
    engine = tt.FakeEngine(process(7), ALPHABET)
    step = tt.Step(stop=(), max_tokens=1, max_steps=4)

    def reward(question, text):
        return 0.05 + 0.9 * hashed("", text)

    def odds(text):
        return reward("", text) / (1 - reward("", text))

    exact = begun = 0.0
    for ids, chance in engine.outcomes((0,), 4):
        text = engine.decode(ids)
        parts = [text[: i + 1] for i in range(len(text))]
        weight = odds(text) if target == "potential" else math.prod(map(odds, parts))
        exact += chance * weight
        begun += chance * weight * text.startswith("a")

    def found(anneal, questions):
        names = {f"q{i}": "a" for i in range(questions)}
        return tt.search_sync(
            engine, names, tt.particles(4, target=target, threshold=0.9, anneal=anneal),
            guide=tt.reward_guide(reward), step=step, temperature=1.0, seed=1,
        )  # fmt: skip

    annealed = found(1.0, 300)
    z = np.exp([each.log_normaliser for each in annealed])
    share = [
        sum(
            w for node, w in zip(each.solutions, each.weights, strict=True) if node.text[0] == "a"
        ) / sum(each.weights)
        for each in annealed
    ]  # fmt: skip
    for estimates, truth in ((z, exact), (z * share, begun)):
        error = estimates.std(ddof=1) / math.sqrt(z.size)
        assert abs(estimates.mean() - truth) < 4 * error, f"{estimates.mean()}, exact {truth}"
    kept = [
        np.mean([len({node.path()[0] for node in each.solutions}) for each in results])
        for results in (annealed[:50], found(0.0, 50))
    ]
    assert kept[0] > kept[1]


@given(rewards=st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_summed_log_odds_are_the_weight_of_the_emission_target(rewards):
    """With no resampling, a particle's weight is the exponential of the sum over its path."""

    def reward(question, text):
        return rewards[len(text) % len(rewards)]

    found = searched(tt.particles(5, target="emission", threshold=0.0), len(rewards), reward=reward)
    sums = [
        tt.sum_log_odds([reward("q", each.text) for each in node.path()])
        for node in found.solutions
    ]
    np.testing.assert_allclose(found.weights, np.exp(np.array(sums) - max(sums)), rtol=1e-9)


@pytest.mark.parametrize("kind", ["mean", "lowest", "bottom", "tail"])
def test_the_confidence_guide_reads_windows_of_the_path(kind):
    engine = tt.FakeEngine(process(3), ALPHABET)
    (found,) = tt.search_sync(
        engine, {"q": "a"}, tt.bfs(4, 3), guide=tt.confidence_guide(kind, 2), step=SMALL
    )
    for node in found.nodes:
        own = [value for each in node.path() for value in each.logprobs]
        windows = [np.mean(own[i : i + 2]) for i in range(max(len(own) - 1, 1))]
        wanted = {
            "mean": np.mean(own), "lowest": min(windows), "bottom": min(windows),
            "tail": windows[-1],
        }  # fmt: skip
        assert node.value == pytest.approx(wanted[kind])


def test_mistakes_are_explained():
    for call, complaint in [
        (lambda: tt.rest_mcts(0), r"simulations \(0\).* must be at least 1"),
        (lambda: tt.rest_mcts(1, alpha=1.5), r"alpha \(1.5\) must lie in \[0, 1\]"),
        (lambda: tt.rest_mcts(1, enough=math.nan), r"enough \(nan\) a number"),
        (lambda: tt.particles(2, anneal=-0.5), r"anneal \(-0.5\) must lie in \[0, 1\]"),
        (lambda: tt.confidence_guide("lowest", 0), "a width of at least 1"),
        (lambda: tt.sum_log_odds([0.5, 1.2]), r"gave 1.2; its log-odds need a value in \[0, 1\]"),
    ]:
        with pytest.raises(ValueError, match=complaint):
            call()
