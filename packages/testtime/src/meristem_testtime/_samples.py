"""From texts and search results to traces and chains.

- answers are extracted and grouped by key (`meristem_core.answers`); the gold answer's key is right
- classes are numbered within the question by first occurrence
"""

from collections.abc import Mapping, Sequence

import numpy as np

from meristem_core.answers import Kind, answer_key, extract_answer
from meristem_testtime._nodes import Node, SearchResult
from meristem_testtime._revisions import Chains
from meristem_testtime._traces import MARKERS, Traces, count_markers


def from_samples(
    samples: Mapping[str, Sequence[tuple[str, int]]],
    gold: Mapping[str, str],
    *,
    kind: Kind = "math",
) -> Traces:
    r"""Return the traces of solutions given as text.

    Parameters
    ----------
    samples
        For each question its solutions: text, and length in tokens.
    gold
        For each question the right answer.
    kind
        How answers are found, as for `meristem_core.answers.extract_answer`.

    Raises
    ------
    ValueError
        If a question has no gold answer.

    Examples
    --------
    >>> texts = [(r"so \boxed{1/2}", 9), (r"so \boxed{0.5}", 5), ("I give up", 3)]
    >>> found = from_samples({"q": texts}, {"q": r"\frac12"})
    >>> found.answer.tolist(), found.correct.tolist()
    ([0, 0, -1], [True, True, False])
    """
    question: list[int] = []
    answer: list[int] = []
    correct: list[bool] = []
    for number, (name, group) in enumerate(samples.items()):
        classes, right = _classes([text for text, _ in group], _gold(gold, name), kind)
        question += [number] * len(group)
        answer += classes
        correct += right
    texts = [text for group in samples.values() for text, _ in group]
    counts = [count_markers(text) for text in texts]
    return Traces(
        question=np.array(question, np.int64),
        answer=np.array(answer, np.int64),
        tokens=np.array([n for group in samples.values() for _, n in group], np.int64),
        correct=np.array(correct, bool),
        questions=tuple(samples),
        markers={name: np.array([each[name] for each in counts], np.int64) for name in MARKERS},
    )


def from_results(
    results: Sequence[SearchResult], gold: Mapping[str, str], *, kind: Kind = "math"
) -> Traces:
    """Return the solutions of a search as traces.

    The scores are "value", what the guide said, and "weight", the solution's weight in the vote;
    `capped` marks solutions that were cut.

    Raises
    ------
    ValueError
        If a question has no gold answer or no solution.
    """
    for result in results:
        if not result.solutions:
            raise ValueError(f"question {result.question!r} has no solution; raise its budget")
    nodes = [node for result in results for node in result.solutions]
    plain = from_samples(
        {
            result.question: [(node.text, len(node.path_ids())) for node in result.solutions]
            for result in results
        },
        gold,
        kind=kind,
    )
    weights = [weight for result in results for weight in result.weights]
    return Traces(
        question=plain.question,
        answer=plain.answer,
        tokens=plain.tokens,
        correct=plain.correct,
        questions=plain.questions,
        scores={
            "value": np.array([node.value for node in nodes], np.float64),
            "weight": np.array(weights, np.float64),
        },
        markers=plain.markers,
        capped=np.array([node.truncated for node in nodes], bool),
    )


def from_revisions(
    results: Sequence[SearchResult], gold: Mapping[str, str], *, kind: Kind = "math"
) -> Chains:
    """Return the chains that `revise` made, one a question; ended chains keep their last answer.

    Raises
    ------
    ValueError
        If a question has no gold answer or no solution.
    """
    rounds = max((len(result.solutions) for result in results), default=0)
    shape = (len(results), rounds)
    answer, tokens = np.full(shape, -1, np.int64), np.zeros(shape, np.int64)
    correct, alive = np.zeros(shape, bool), np.zeros(shape, bool)
    for row, result in enumerate(results):
        chain: tuple[Node, ...] = result.solutions
        if not chain:
            raise ValueError(f"question {result.question!r} has no solution; raise its budget")
        classes, right = _classes([node.text for node in chain], _gold(gold, result.question), kind)
        place = np.minimum(np.arange(rounds), len(chain) - 1)
        answer[row], correct[row] = np.array(classes)[place], np.array(right)[place]
        alive[row, : len(chain)] = True
        tokens[row, : len(chain)] = [len(node.ids) for node in chain]
    return Chains(
        question=np.arange(len(results)), answer=answer, correct=correct, tokens=tokens, alive=alive
    )


def _classes(texts: Sequence[str], gold: str, kind: Kind) -> tuple[list[int], list[bool]]:
    known: dict[str, int] = {}
    classes: list[int] = []
    for text in texts:
        stated = extract_answer(text, kind)
        key = None if stated is None else answer_key(stated)
        classes.append(-1 if key is None else known.setdefault(key, len(known)))
    right = known.get(answer_key(gold), -2)
    return classes, [each == right for each in classes]


def _gold(gold: Mapping[str, str], name: str) -> str:
    if name not in gold:
        raise ValueError(f"question {name!r} has no gold answer; add it")
    return gold[name]
