"""Splits of documents by the hash of their id, and removal of equal texts before it.

- u(id) in [0, 1) is the head of SHA-256(seed:id); the splits divide [0, 1) in their given order
- so a document's split depends on seed, fractions and its own id alone, never on other documents
- equal texts under two ids could fall into two splits: `deduplicate` first
"""

import hashlib
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping

from meristem_core._documents import Document

SUM_TOLERANCE = 1e-9  # decimal fractions such as 0.1 + 0.2 + 0.7 miss 1 by some 1e-16

logger = logging.getLogger(__name__)


def assign_splits(
    ids: Iterable[str], *, fractions: Mapping[str, float], seed: int
) -> dict[str, str]:
    """Return the split of each document id, in the order of `ids`.

    Parameters
    ----------
    ids
        Document ids, all different.
    fractions
        Expected share of each split, > 0, with sum 1. Shares of few documents scatter, and a split
        can stay empty.
    seed
        Any integer; another seed is another assignment.

    Raises
    ------
    ValueError
        If a fraction is not positive and finite, they do not sum to 1, or an id comes twice.

    Examples
    --------
    >>> assign_splits(["a", "b", "c"], fractions={"train": 0.5, "test": 0.5}, seed=1)
    {'a': 'train', 'b': 'train', 'c': 'test'}
    >>> assign_splits([], fractions={"train": 1.0}, seed=0)
    {}
    """
    bounds = _bounds(fractions)
    splits: dict[str, str] = {}
    for id in ids:
        if id in splits:
            raise ValueError(f"id {id!r} comes twice; ids must be unique within a corpus")
        place = _uniform(id, seed)
        splits[id] = next(name for name, bound in bounds if place < bound)
    return splits


def deduplicate(
    documents: Iterable[Document],
    *,
    dropped: Callable[[Document, str], None] | None = None,
) -> Iterator[Document]:
    r"""Yield the documents whose text has not come before, white space apart.

    Parameters
    ----------
    documents
        Read once, one at a time; a hash and an id of each are kept.
    dropped
        Called with each document that is left out and the id of the first one with its text.
        The number of them is logged in any case.

    Notes
    -----
    Two texts are equal if their words, split at any white space, are. The first one stays.

    Examples
    --------
    >>> texts = {"a": "to be", "b": " to\n be ", "c": "tobe"}
    >>> documents = [Document(id=id, text=text) for id, text in texts.items()]
    >>> [document.id for document in deduplicate(documents)]
    ['a', 'c']
    """
    first: dict[bytes, str] = {}
    n_dropped = 0
    for document in documents:
        words = " ".join(document.text.split())
        key = hashlib.sha256(words.encode("utf-8", "surrogatepass")).digest()
        if key not in first:
            first[key] = document.id
            yield document
            continue
        n_dropped += 1
        if dropped is not None:
            dropped(document, first[key])
    logger.info("%d of %d documents repeat an earlier text", n_dropped, n_dropped + len(first))


def _bounds(fractions: Mapping[str, float]) -> list[tuple[str, float]]:
    """Return each split with the upper end of its part of [0, 1)."""
    for name, fraction in fractions.items():
        if not (math.isfinite(fraction) and fraction > 0):
            raise ValueError(
                f"fractions[{name!r}] is {fraction}; fractions are positive, so leave the split out"
            )
    total = math.fsum(fractions.values())
    if abs(total - 1) > SUM_TOLERANCE:
        raise ValueError(f"fractions sum to {total}, not to 1; add a split for the rest")
    names, shares = list(fractions), list(fractions.values())
    ends = [math.fsum(shares[: i + 1]) for i in range(len(shares) - 1)]
    return list(zip(names, [*ends, math.inf], strict=True))


def _uniform(id: str, seed: int) -> float:
    """Return a number in [0, 1) with 53 random bits that depends on id and seed alone."""
    data = hashlib.sha256(f"{seed}:{id}".encode("utf-8", "surrogatepass")).digest()
    return (int.from_bytes(data[:8], "big") >> 11) / 2**53
