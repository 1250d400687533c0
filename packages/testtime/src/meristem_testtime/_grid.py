"""Parallel and sequential scaling together: several chains, each revised several times."""

from meristem_testtime._nodes import Node
from meristem_testtime._sequential import kept_text
from meristem_testtime._task import Algorithm, Task


def grid(chains: int, rounds: int, cue: str = "Wait", *, last: bool = False) -> Algorithm:
    """Return `chains` independent solutions, each revised `rounds` times as by `revise`.

    Parameters
    ----------
    chains, rounds
        `grid(n, 0)` is `best_of_n(n)`; `grid(1, r)` is `revise(r)`. A chain ends early in a full
        context.
    cue
        Written after the kept text, in a new paragraph.
    last
        Whether only the last answer of each chain is a solution, or every answer of every round.

    References
    ----------
    arXiv 2408.03314, section 6, the ratio of sequential to parallel; arXiv 2502.12215 for the
    revision.
    """
    if chains < 1 or rounds < 0 or not cue:
        raise ValueError(
            f"chains ({chains}) must be at least 1, rounds ({rounds}) at least 0, the cue not empty"
        )

    async def algorithm(task: Task) -> None:
        (ends,) = await task.expand([task.root], chains, whole=True)
        try:
            _give(task, [] if last else ends)
            for _ in range(rounds):
                heads = {i: await _head(task, node, cue) for i, node in enumerate(ends)}
                going = {i: head for i, head in heads.items() if task.fits(head)}
                revised = await task.expand(list(going.values()), whole=True)
                for i, (node,) in zip(going, revised, strict=True):
                    ends[i] = node
                _give(task, [] if last else [ends[i] for i in going])
        finally:
            _give(task, ends if last else [])

    return algorithm


async def _head(task: Task, node: Node, cue: str) -> Node:
    kept = kept_text(node.text)
    return await task.append(task.root, f"{kept}\n\n{cue}" if kept else cue)


def _give(task: Task, nodes: list[Node]) -> None:
    for node in nodes:
        task.finish(node)
