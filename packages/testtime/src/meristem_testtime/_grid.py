"""Parallel and sequential scaling together: several chains, each revised several times."""

from collections.abc import Sequence

from meristem_testtime._nodes import Node
from meristem_testtime._sequential import cues_of, revision_of
from meristem_testtime._task import Algorithm, Task


def grid(
    chains: int, rounds: int, cue: str | Sequence[str] = "Wait", *, last: bool = False
) -> Algorithm:
    """Return `chains` independent solutions, each revised `rounds` times as by `revise`.

    A round of all chains is one expansion. The solutions are those of the first chain from its
    first answer to its last, then those of the second, and so on; only first answers continue the
    root itself, so the result tells where a chain begins. `from_revisions` reads it.

    Parameters
    ----------
    chains, rounds
        `grid(n, 0)` is `best_of_n(n)`; `grid(1, r)` asks what `revise(r)` asks and finds the same.
        A chain ends early in a full context, and the others go on.
    cue
        Written after the kept text, in a new paragraph; of several, for each chain the likelier.
    last
        Whether only the last answer of each chain is a solution, or every answer of every round.

    References
    ----------
    arXiv 2408.03314, section 6, the ratio of sequential to parallel; arXiv 2502.12215 for the
    revision.
    """
    cues = cues_of(cue)
    if chains < 1 or rounds < 0:
        raise ValueError(f"chains ({chains}) must be at least 1, rounds ({rounds}) at least 0")

    async def algorithm(task: Task) -> None:
        (firsts,) = await task.expand([task.root], chains, whole=True)
        found = [[node] for node in firsts]
        try:
            going = found
            for _ in range(rounds):
                going = await _revised(task, going, cues)
        finally:
            for chain in found:
                for node in chain[-1:] if last else chain:
                    task.finish(node)

    return algorithm


async def _revised(
    task: Task, chains: Sequence[list[Node]], cues: Sequence[str]
) -> list[list[Node]]:
    """Revise the chains that have room, and return these."""
    heads = [await revision_of(task, chain[-1], cues) for chain in chains]
    going = [(chain, head) for chain, head in zip(chains, heads, strict=True) if head is not None]
    answers = await task.expand([head for _, head in going], whole=True)
    for (chain, _), (node,) in zip(going, answers, strict=True):
        chain.append(node)
    return [chain for chain, _ in going]
