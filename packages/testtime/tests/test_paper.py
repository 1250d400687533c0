"""Published numbers, and numbers of published data."""

import io
import json

import numpy as np
import pytest

import meristem_testtime as tt

pytestmark = [pytest.mark.data, pytest.mark.paper]


def reward_traces(data_dir):
    zstandard = pytest.importorskip("zstandard")
    raw = (data_dir / "qwen_math_rm" / "qwen25math_rm8_math100.jsonl.zst").read_bytes()
    text = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(raw)).read().decode()
    rows = [json.loads(line) for line in text.splitlines()]
    columns = {name: [] for name in ("question", "answer", "tokens", "correct", "reward")}
    for q, row in enumerate(rows):
        known = {}
        for answer, code, score, reward in zip(
            row["pred"], row["code"], row["score"], row["pred_score"], strict=True
        ):
            columns["question"].append(q)
            columns["answer"].append(known.setdefault(answer, len(known)) if answer else -1)
            columns["tokens"].append(len(code.split()))
            columns["correct"].append(bool(score))
            columns["reward"].append(float(np.ravel(reward)[0]))
    return tt.Traces(
        question=np.array(columns["question"]),
        answer=np.array(columns["answer"]),
        tokens=np.array(columns["tokens"]),
        correct=np.array(columns["correct"]),
        questions=tuple(str(i) for i in range(len(rows))),
        scores={"reward": np.array(columns["reward"])},
    )


def test_rules_on_the_reward_model_samples(data_dir):
    traces, ks = reward_traces(data_dir), [1, 2, 4, 8]

    def mean(values):
        return (100 * values.mean(0)).round(4).tolist()

    assert mean(tt.pass_at_k(traces, ks)) == [91.0, 93.2857, 95.1, 96.0]
    assert mean(tt.maj_at_k(traces, ks)) == [91.0, 91.0, 92.0107, 92.5]
    assert mean(tt.bon_at_k(traces, ks, "reward")) == [91.0, 92.7857, 93.6143, 94.0]
    shortest = tt.at_k(traces, tt.shortest_majority, ks)
    assert shortest.exact
    assert mean(shortest.values) == [91.0, 91.8036, 92.3071, 93.0]
    summed = tt.at_k(traces, tt.weighted("reward", tt.sigmoid), ks)
    assert mean(summed.values) == [91.0, 92.7857, 93.5714, 94.0]


def test_the_shortest_vote_is_almost_only_a_tie_break(data_dir):
    traces = tt.read_traces(data_dir / "reasoning_traces" / "traces.csv.gz")
    assert len(traces) == 16
    shares = [tt.explain_smv(each) for each in traces.values()]
    assert max(each.overturn for each in shares) < 0.02
