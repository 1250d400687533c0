"""Sequential scaling: revise a solution again and again, or force how long the model thinks.

- a revision drops the last paragraph, writes a cue such as "Wait", and lets the model go on
- every round is given as a solution, in order; `from_revisions` makes chains of them
- the kept text is encoded anew together with the cue
- a forced budget keeps token ids: what was thought is never encoded anew
"""

from collections.abc import Sequence

from meristem_testtime._engine import ContextFullError
from meristem_testtime._nodes import Node, Step
from meristem_testtime._task import Algorithm, Task

END = "</think>"  # of DeepSeek-R1, QwQ, Qwen3


def revise(rounds: int, cue: str | Sequence[str] = "Wait") -> Algorithm:
    """Return a chain of `rounds` revisions of one solution; it ends early in a full context.

    Parameters
    ----------
    rounds
        Revisions after the first solution; 0 gives that alone.
    cue
        Written after the kept text, in a new paragraph. Of several the likelier is taken, the
        paper's being ``("Wait", "Alternatively")``; that needs an engine that scores.

    References
    ----------
    arXiv 2502.12215.
    """
    cues = cues_of(cue)
    if rounds < 0:
        raise ValueError(f"rounds ({rounds}) must be at least 0")

    async def algorithm(task: Task) -> None:
        node = await _whole(task, task.root)
        task.finish(node)
        for _ in range(rounds):
            head = await revision_of(task, node, cues)
            if head is None:
                return
            node = await _whole(task, head)
            task.finish(node)

    return algorithm


def cues_of(cue: str | Sequence[str]) -> tuple[str, ...]:
    """Return one cue or several as a tuple.

    Raises
    ------
    ValueError
        If there is none, or one is empty.
    """
    cues = (cue,) if isinstance(cue, str) else tuple(cue)
    if not cues or "" in cues:
        raise ValueError(f"cue is {cue!r}; it must be a text or several, none empty")
    return cues


async def revision_of(task: Task, node: Node, cues: Sequence[str]) -> Node | None:
    """Return a head with the text that a revision of `node` keeps and the likeliest cue after it.

    Of equally likely cues the first. None where the context has no room for a revision; then
    nothing is scored, unless the cue alone is too much.
    """
    kept = kept_text(node.text)
    text = f"{kept}\n\n" if kept else ""
    if len(cues) == 1:
        head = await task.append(task.root, text + cues[0])
        return head if task.fits(head) else None
    before = await task.append(task.root, text)
    if not task.fits(before):
        return None
    scores = await task.logprobs(before, cues)
    head = await task.append(before, cues[scores.index(max(scores))])
    return head if task.fits(head) else None


def kept_text(text: str) -> str:
    r"""Return `text` without its last paragraph, or its last two around a final answer.

    What follows the end of thinking, ``</think>``, is dropped first.

    Examples
    --------
    >>> kept_text("first\n\nsecond\n\nthird")
    'first\n\nsecond'
    >>> kept_text("first\n\nThe final answer:\n\n4")
    'first'
    >>> kept_text("only")
    ''
    >>> kept_text("first\n\nsecond\n</think>\n\nThe answer is 4.")
    'first'
    """
    text = text.partition(END)[0]
    parts = text.rstrip("\n").split("\n\n")
    drop = 2 if len(parts) > 1 and "final answer" in parts[-2].lower() else 1
    return "\n\n".join(parts[:-drop])


def force_budget(
    min_tokens: int,
    max_tokens: int,
    *,
    cue: str = "Wait",
    end: str = END,
    answer: str = "\nFinal Answer:",
) -> Algorithm:
    """Return one solution whose thinking takes between `min_tokens` and `max_tokens` (s1).

    Where the model ends sooner, what ended it is taken away and the cue written; at the limit its
    thinking is ended and the answer asked for. The cues count as thought: one that would exceed the
    limit is not written, so a minimum close to it may be missed by less than a cue. A thought in a
    full context is given as it is, marked as truncated.

    Parameters
    ----------
    min_tokens, max_tokens
        Tokens of thinking, all parts of it together.
    end
        What ends thinking; it must be text to the engine's tokenizer, not a special token.
    answer
        Written after `end` at the limit, a new line before both.

    References
    ----------
    arXiv 2501.19393, section 3.
    """
    if not 0 <= min_tokens <= max_tokens or max_tokens < 1:
        raise ValueError(
            f"min_tokens ({min_tokens}) must be in [0, max_tokens], max_tokens ({max_tokens}) at "
            "least 1"
        )
    if not cue or not end:
        raise ValueError(f"cue ({cue!r}) and end ({end!r}) must be texts")

    async def algorithm(task: Task) -> None:
        drawn = await _think(task, task.root, end, max_tokens)
        thought, ended = task.before(drawn, end)
        try:
            while ended and _length(thought) < min_tokens:
                head = await task.append(thought, cue)
                left = max_tokens - _length(head)
                ended = False
                if left > 0:
                    drawn = await _think(task, head, end, left)
                    thought, ended = task.before(drawn, end)
                elif left == 0:
                    thought = head
            if not ended:
                line = "" if thought.text.endswith("\n") else "\n"
                head = await task.append(thought, f"{line}{end}{answer}")
                task.finish(await _whole(task, head))
            elif drawn.truncated:  # it ended its thinking
                task.finish(await _whole(task, await task.append(drawn, "")))
            else:
                task.finish(drawn)
        except ContextFullError:
            task.finish(drawn)

    return algorithm


async def _think(task: Task, node: Node, end: str, most: int) -> Node:
    step = Step(stop=(end,), max_tokens=most, max_steps=1)
    return (await task.expand([node], step=step))[0][0]


def _length(node: Node) -> int:
    return len(node.path_ids())


async def _whole(task: Task, node: Node) -> Node:
    return (await task.expand([node], whole=True))[0][0]
