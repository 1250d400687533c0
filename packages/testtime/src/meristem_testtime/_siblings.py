"""Siblings with equal tokens are one action of a tree search; how often it was drawn is kept."""

from collections.abc import Iterable

from meristem_testtime._nodes import Node


def merged(siblings: Iterable[Node]) -> dict[Node, int]:
    """Return siblings with different tokens and how often each was drawn, in order of sampling.

    The first of equal ones stands for all. Only children of one node may be given.
    """
    first: dict[tuple[int, ...], Node] = {}
    copies: dict[Node, int] = {}
    for node in siblings:
        kept = first.setdefault(node.ids, node)
        copies[kept] = copies.get(kept, 0) + 1
    return copies
