"""Sequential scaling: revise a solution again and again, or force how long the model thinks.

- a revision drops the last paragraph, writes a cue such as "Wait", and lets the model go on
- every round is given as a solution, in order; `from_revisions` makes chains of them
- the kept text is encoded anew together with the cue
"""

from meristem_testtime._engine import ContextFullError
from meristem_testtime._nodes import Node
from meristem_testtime._task import Algorithm, Task


def revise(rounds: int, cue: str = "Wait") -> Algorithm:
    """Return a chain of `rounds` revisions of one solution; it ends early in a full context.

    Parameters
    ----------
    rounds
        Revisions after the first solution; 0 gives that alone.
    cue
        Written after the kept text, in a new paragraph.

    References
    ----------
    arXiv 2502.12215, with one fixed cue; its code takes the likelier of two.
    """
    if rounds < 0 or not cue:
        raise ValueError(f"rounds ({rounds}) must be at least 0 and the cue not empty")

    async def algorithm(task: Task) -> None:
        node = await _whole(task, task.root)
        task.finish(node)
        for _ in range(rounds):
            kept = kept_text(node.text)
            head = await task.append(task.root, f"{kept}\n\n{cue}" if kept else cue)
            try:
                node = await _whole(task, head)
            except ContextFullError:
                return
            task.finish(node)

    return algorithm


def kept_text(text: str) -> str:
    r"""Return `text` without its last paragraph, or its last two around a final answer.

    Examples
    --------
    >>> kept_text("first\n\nsecond\n\nthird")
    'first\n\nsecond'
    >>> kept_text("first\n\nThe final answer:\n\n4")
    'first'
    >>> kept_text("only")
    ''
    """
    parts = text.rstrip("\n").split("\n\n")
    drop = 2 if len(parts) > 1 and "final answer" in parts[-2].lower() else 1
    return "\n\n".join(parts[:-drop])


def force_budget(extensions: int, cue: str = "Wait") -> Algorithm:
    """Return one solution that was made to go on `extensions` times with a cue (s1).

    The text stays whole: unlike `revise`, nothing is dropped. Only the last is a solution.

    References
    ----------
    arXiv 2501.19393.
    """
    if extensions < 0 or not cue:
        raise ValueError(f"extensions ({extensions}) must be at least 0 and the cue not empty")

    async def algorithm(task: Task) -> None:
        node = await _whole(task, task.root)
        for _ in range(extensions):
            head = await task.append(task.root, node.text + cue)
            node = await _whole(task, head)
        task.finish(node)

    return algorithm


async def _whole(task: Task, node: Node) -> Node:
    return (await task.expand([node], whole=True))[0][0]
