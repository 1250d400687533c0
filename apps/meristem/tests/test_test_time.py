"""The reproductions of test-time scaling: their rules, their data, and that they run."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import meristem_testtime as tt
from meristem.reproduce import (
    _deepconf,
    _revision,
    _revision_grid,
    _search_and_learning,
    _shortest_votes,
    _stopping,
    _test_time_scaling,
)
from meristem.reproduce._data import judge, pooled
from meristem_core import stream
from meristem_core.answers import answer_key, extract_answer
from meristem_core.command import UsageError

SIZE = 7


@st.composite
def samples(draw):
    """Return answers, and lengths that all differ, of SIZE samples of each question."""
    count = SIZE * draw(st.integers(2, 5))
    answers = draw(st.lists(st.integers(-1, 3), min_size=count, max_size=count))
    return answers, draw(st.permutations(range(2, count + 2)))


def traces_of(answers, tokens):
    """Return traces in which class 0 is right."""
    count = len(answers) // SIZE
    return tt.Traces(
        question=np.repeat(np.arange(count), SIZE), answer=np.array(answers),
        tokens=np.array(tokens), correct=np.array(answers) == 0,
        questions=tuple(map(str, range(count))),
    )  # fmt: skip


def each_question(traces):
    """Yield answers and lengths of the samples of each question."""
    for question in range(len(traces.questions)):
        rows = traces.question == question
        yield traces.answer[rows].tolist(), traces.tokens[rows].tolist()


def interval(low, high):
    return tt.MeanInterval(
        mean=(low + high) / 2, low=low, high=high, se=1.0, minimal_detectable=2.8, n_questions=9,
        n_clusters=9, level=0.95,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("low", "high", "sign", "verdict"),
    [
        (0.1, 0.2, 1, "reproduced"), (-0.2, -0.1, -1, "reproduced"), (-0.1, 0.1, 1, "partly"),
        (-0.2, -0.1, 1, "refuted"), (0.1, 0.2, -1, "refuted"), (0.0, 0.2, 1, "partly"),
        (0.0, 0.0, 1, "partly"),
    ],
)  # fmt: skip
def test_the_interval_decides(low, high, sign, verdict):
    assert judge(interval(low, high), sign) == verdict


def test_no_model_hides_another():
    assert pooled(["reproduced", "reproduced", "not testable here"]) == "reproduced"
    assert pooled(["reproduced", "refuted"]) == "partly"
    assert pooled(["refuted", "refuted"]) == "refuted"
    assert pooled(["not testable here"]) == "not testable here"


def test_without_the_data_every_claim_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("MERISTEM_DATA", str(tmp_path))
    rows = _search_and_learning.published_rows(0)
    rows += [*_test_time_scaling.published_rows(0), *_stopping.published_stopping(0)]
    assert {row.verdict for row in rows} == {"not testable here"}
    assert all("MERISTEM_DATA" in row.note for row in rows)
    monkeypatch.setenv("MERISTEM_DATA", str(tmp_path / "none"))
    with pytest.raises(UsageError, match="is not a folder; correct or unset it"):
        _search_and_learning.published_rows(0)


@pytest.mark.data
@pytest.mark.paper
def test_the_logs_of_tree_search_and_verifiers(data_dir, monkeypatch):
    monkeypatch.setenv("MERISTEM_DATA", str(data_dir))
    rows = {row.claim: row for row in _search_and_learning.published_rows(0)}
    assert {row.verdict for row in rows.values()} == {"reproduced"}
    found = [row.measured for row in rows.values()]
    assert found[0] == pytest.approx(0.4900 - 0.0403, abs=1e-4)
    assert found[1] == pytest.approx(0.026, abs=1e-3)
    assert found[2] == 1
    assert found[4] == pytest.approx(0.3904 - 0.2168, abs=1e-4)
    assert found[5] == pytest.approx(0.5625 - 0.3472, abs=1e-4)


@pytest.mark.data
@pytest.mark.paper
def test_the_shortest_vote_on_published_samples(data_dir, monkeypatch):
    monkeypatch.setenv("MERISTEM_DATA", str(data_dir))
    rows = _test_time_scaling.published_rows(0)
    assert len(rows) == 4 * 2 * 17 + 6 * 17 + 2
    eight = {"beats majority at k = 8": "partly", "beats longest majority at k = 8": "partly",
             "is majority with ties to the shortest at k = 8": "reproduced"}  # fmt: skip
    for what, verdict in eight.items():
        votes = [row for row in rows if row.claim.startswith(f"shortest majority {what}")]
        assert {row.verdict for row in votes if row.n} == {verdict}
    three = [row for row in rows if row.claim.startswith("short-3 beats")]
    assert "reproduced" not in {row.verdict for row in three}
    assert rows[-1].measured == 0
    assert rows[-1].verdict == "reproduced"


@pytest.fixture(scope="module")
def model():
    return _revision.train(steps=120, seed=0)


@given(drawn=samples())
def test_short_votes_are_those_of_their_definitions(drawn):
    traces = traces_of(*drawn)

    def right(rule):
        return tt.at_k(traces, rule, [SIZE]).values[:, 0]

    full = tt.vote(traces, tt.majority, ties="shortest")
    for question, (answers, tokens) in enumerate(each_question(traces)):
        ranked = [answer for _, answer in sorted(zip(tokens, answers, strict=True))]
        stated = [answer for answer in ranked if answer >= 0]
        assert right(_shortest_votes.shortest)[question] == (stated[:1] == [0])
        counts = Counter(answer for answer in ranked[:3] if answer >= 0)  # the first of equal ones
        winner = [answer for answer, _ in counts.most_common(1)]
        assert right(_shortest_votes.short_3)[question] == (winner == [0])
        lengths = [_mean_length(answers, tokens, each) for each in set(stated)]
        if len(set(lengths)) == len(lengths):
            got = right(_shortest_votes.ties_to_shortest)[question]
            assert got == full.correct[question]


def _mean_length(answers, tokens, answer):
    return np.mean([n for each, n in zip(answers, tokens, strict=True) if each == answer])


def test_what_is_not_drawn_when_three_have_ended():
    traces = tt.Traces(
        question=np.zeros(4, int), answer=np.zeros(4, int), tokens=np.array([10, 1, 3, 2]),
        correct=np.ones(4, bool), questions=("q",),
    )  # fmt: skip
    assert _shortest_votes.unspent(traces, 3) == pytest.approx([7 / 16])
    assert _shortest_votes.unspent(traces, 4) == pytest.approx([0])


@given(drawn=samples())
def test_stopping_hears_of_a_beginning_and_certainty_loses_nothing(drawn):
    traces = traces_of(*drawn)
    for order in (np.zeros(traces.question.size), traces.tokens):
        for stop in (tt.beta(0.8), tt.dirichlet(0.8), tt.certain):
            heard = _stopping.judged(traces, stop, order)
            for question in range(len(traces.questions)):
                rows = traces.question == question
                ranked = heard[rows][np.argsort(order[rows], kind="stable")]
                assert ranked[0]
                assert (np.diff(ranked.astype(int)) <= 0).all()
            if stop is tt.certain:
                assert not _stopping.disagreement(traces, heard).any()


def _key(text):
    stated = extract_answer(text, "number")
    return None if stated is None else answer_key(stated)


@pytest.mark.parametrize("stop", [tt.beta(0.8), tt.certain])
def test_replayed_stopping_is_adaptive_sampling(stop):
    engine = tt.FakeEngine(lambda ids: stream(5, *ids).dirichlet(np.ones(4)), "012.")
    prompts = {f"q{i}": "012"[i % 3] * (i // 3 + 1) for i in range(12)}
    gold = dict.fromkeys(prompts, "0")

    def traces(algorithm):
        found = tt.search_sync(engine, prompts, algorithm, step=tt.Step(max_tokens=2, max_steps=1))
        return tt.from_results(found, gold, kind="number")

    whole = traces(tt.best_of_n(9))
    heard = _stopping.judged(whole, stop, np.zeros(whole.question.size))
    sampled = traces(tt.adaptive(stop, 9, _key))
    assert whole.take(heard).sizes().tolist() == sampled.sizes().tolist()
    assert not heard.all()


@pytest.mark.slow
def test_revision_helps_where_the_skill_is(model):
    rows = {row.claim: row for row in _revision.revision_rows(model, 120, 0)}
    assert rows["revising helps: a model that repairs well"].verdict == "reproduced"
    assert rows["revising fails: a model that repairs badly"].measured < 0


@given(notice=st.floats(0, 0.9), repair=st.floats(0, 1), error=st.floats(0, 1))
def test_the_prediction_is_that_of_the_training_texts(notice, repair, error):
    """By following the texts' own rule for many redos."""
    right = {"first": 1 - error, "forced": repair}
    left = {name: 1 - chance for name, chance in right.items()}
    for _ in range(400):
        for name in right:
            right[name] += left[name] * notice * repair
            left[name] *= notice * (1 - repair)
    expected = right["forced"] - (right["forced"] + right["first"]) / 2
    assert _revision_grid.predicted(notice, repair, error) == pytest.approx(expected, abs=1e-9)


@pytest.mark.slow
def test_revising_follows_the_exact_process(monkeypatch):
    monkeypatch.setattr(_revision_grid, "CELLS", {"C": (0.1, 0.9), "D": (0.3, 0.3)})
    helps, fails = _revision_grid.grid_rows(150, 100, 0)
    assert (helps.claimed, fails.claimed) == (0.114, -0.155)
    assert helps.verdict == fails.verdict == "reproduced"
    assert helps.claim.startswith("revising helps")
    assert helps.low > 0 > fails.high


@pytest.mark.data
@pytest.mark.paper
def test_stopping_on_published_samples(data_dir, monkeypatch):
    monkeypatch.setenv("MERISTEM_DATA", str(data_dir))
    rows = {row.claim: row for row in _stopping.published_stopping(0)}
    saved = [row.measured for claim, row in rows.items() if claim.startswith("samples saved")]
    assert saved == sorted(saved, reverse=True)
    assert 0 < saved[-1] < 3 / 8  # certainty needs five of eight
    assert rows["early vote is not the full vote by certain: MATH samples"].measured == 0
    assert rows["order of arrival judges shorter samples, beta(0.95): MATH samples"].high < 0


@pytest.mark.slow
def test_the_order_of_arrival_favours_short_samples(model):
    rows = {row.claim: row for row in _stopping.model_stopping(model, 120, 0)}
    for skill, bias in (("well", "less"), ("badly", "more")):
        where = f"a model that repairs {skill}"
        claim = f"order of arrival judges samples that are {bias} often right, beta(0.95): {where}"
        assert rows[claim].verdict == "reproduced"
        assert rows[f"early vote is not the full vote by certain: {where}"].measured == 0


@pytest.mark.slow
def test_deepconf_keeps_what_its_threshold_keeps(model):
    prompts, _ = _revision.questions("U", 20, 0)
    algorithm = tt.deepconf(8, warmup=4, keep=0.5, width=_deepconf.WIDTH, top=_deepconf.TOP)
    found = tt.search_sync(model, prompts, algorithm, step=_revision.STEP, temperature=1.0)
    for result in found:
        least = _deepconf.threshold(result, 0.5)
        lowest = [
            tt.window_confidence(np.array(node.confidence), _deepconf.WIDTH).lowest
            for node in result.nodes
        ]
        assert sum(value >= least - 1e-9 for value in lowest) == len(result.solutions)
    *rows, headline = _deepconf.deepconf_rows(model, 40, 0)
    assert headline.verdict == "not testable here"
    saved = {row.claim[:13]: row.measured for row in rows if "saves" in row.claim}
    assert 0 < saved["DeepConf-high"] < saved["DeepConf-low "] < 1
