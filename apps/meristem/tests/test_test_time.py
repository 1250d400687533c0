"""The reproductions of test-time scaling: their rules, their data, and that they run."""

import pytest

import meristem_testtime as tt
from meristem.reproduce import _revision, _search_and_learning, _test_time_scaling
from meristem.reproduce._data import judge, pooled
from meristem_core.command import UsageError


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
    rows = _search_and_learning.reproduce(tmp_path, True, 0)
    assert {row.verdict for row in rows} == {"not testable here"}
    assert all("MERISTEM_DATA" in row.note for row in rows)
    monkeypatch.setenv("MERISTEM_DATA", str(tmp_path / "none"))
    with pytest.raises(UsageError, match="is not a folder; correct or unset it"):
        _search_and_learning.reproduce(tmp_path, True, 0)


@pytest.mark.data
@pytest.mark.paper
def test_the_logs_of_tree_search_and_verifiers(data_dir, tmp_path, monkeypatch):
    monkeypatch.setenv("MERISTEM_DATA", str(data_dir))
    rows = {row.claim: row for row in _search_and_learning.reproduce(tmp_path, True, 0)}
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
    assert len(rows) == 4 * 2 * 17 + 1
    votes = [row for row in rows if row.claim.startswith("shortest majority") and row.n]
    assert not any(row.verdict == "reproduced" for row in votes)
    assert rows[-1].measured == 0
    assert rows[-1].verdict == "reproduced"


@pytest.mark.slow
def test_revision_helps_where_the_skill_is(tmp_path):
    rows = {row.claim: row for row in _revision.revision_rows(tmp_path, True, 0)}
    assert rows["revising helps: a model that repairs well"].verdict == "reproduced"
    assert rows["revising fails: a model that repairs badly"].measured < 0
