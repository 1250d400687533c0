"""From texts and search results to traces and chains.

- answers are extracted and grouped by key (`meristem_core.answers`); the gold answer's key is right
- classes are numbered within the question by first occurrence
"""

from collections.abc import Mapping, Sequence

import numpy as np

from meristem_core.answers import Kind, answer_key, extract_answer
from meristem_testtime._nodes import Node, SearchResult
from meristem_testtime._revisions import Chains, held
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

    The scores are "value", what the guide said; "weight", the solution's weight in the vote; and,
    where all solutions have log-probabilities, "probability", the geometric mean over the sampled
    tokens, in (0, 1]. `capped` marks solutions that were cut.

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
            **_probability(nodes),
        },
        markers=plain.markers,
        capped=np.array([node.truncated for node in nodes], bool),
    )


def _probability(nodes: Sequence[Node]) -> dict[str, np.ndarray]:
    paths = [[x for part in node.path() for x in part.logprobs] for node in nodes]
    return {"probability": np.exp([np.mean(path) for path in paths])} if all(paths) else {}


def from_revisions(
    results: Sequence[SearchResult], gold: Mapping[str, str], *, kind: Kind = "math"
) -> Chains:
    """Return the chains that `revise` or `grid` made, question by question, as they were given.

    A solution that continues the question itself begins a chain, those after it revise it. Chains
    that ended early keep their last answer; classes are those of all chains of a question.

    Raises
    ------
    ValueError
        If a question has no gold answer, no solution, or solutions that are no chains, such as
        those of another algorithm or of ``grid(..., last=True)``.
    """
    solutions = [node for result in results for node in result.solutions]
    question: list[int] = []
    begins: list[bool] = []
    answer: list[int] = []
    correct: list[bool] = []
    for number, result in enumerate(results):
        first = _begins(result)
        classes, right = _classes(
            [node.text for node in result.solutions], _gold(gold, result.question), kind
        )
        question += [number] * sum(first)
        begins, answer, correct = begins + first, answer + classes, correct + right
    start = np.flatnonzero(begins)
    chain = np.cumsum(begins) - 1
    place = np.arange(chain.size) - start[chain]
    alive = np.zeros((start.size, int(place.max(initial=-1)) + 1), bool)
    alive[chain, place] = True

    def table(values: Sequence[int]) -> np.ndarray:
        found = np.zeros(alive.shape, np.int64)
        found[chain, place] = values
        return found

    return Chains(
        question=np.array(question, np.int64),
        answer=held(table(answer), alive),
        correct=held(table(correct).astype(bool), alive),
        tokens=table([len(node.ids) for node in solutions]),
        alive=alive,
    )


def _begins(result: SearchResult) -> list[bool]:
    """Return which solutions begin a chain."""
    if not result.solutions:
        raise ValueError(f"question {result.question!r} has no solution; raise its budget")
    first = [_is_first(node) for node in result.solutions]
    if not first[0] or sum(first) != sum(map(_is_first, result.nodes)):
        raise ValueError(
            f"question {result.question!r} has solutions that are no chains of revisions; give "
            "what `revise` found, or `grid` with last=False"
        )
    return first


def _is_first(node: Node) -> bool:
    """Return whether it was drawn after the question alone."""
    return node.depth == 1 and len(node.path()) == 1


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
