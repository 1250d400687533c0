"""Behaviours as pairs of prompts: subject-verb agreement, indirect objects, induction.

- a pair has two prompts of one length and two answers of one token: each prompt prefers its own
- the metric is logit(clean answer) - logit(patch answer) at the last position
- prompts are drawn from templates and kept where the tokenizer gives single-token answers

Shape letters: N pairs, T positions.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from meristem_core import stream

Encode = Callable[[str], Sequence[int]]
Texts = tuple[str, str, str, str]  # clean prompt, patch prompt, clean answer, patch answer
Row = tuple[list[int], list[int], int, int]  # the same in tokens

# fmt: off
SUBJECTS = (
    "boy", "girl", "friend", "teacher", "doctor", "farmer", "driver", "actor", "singer", "writer",
    "king", "queen", "brother", "sister", "son", "daughter", "student", "soldier", "dog", "horse",
)
VERBS = (
    ("is", "are"), ("was", "were"), ("has", "have"), ("does", "do"), ("goes", "go"),
    ("says", "say"), ("wants", "want"), ("knows", "know"), ("looks", "look"), ("makes", "make"),
)
NAMES = (
    "Mary", "John", "Tom", "James", "Sarah", "Anna", "Paul", "Peter", "David", "Mark", "Jack",
    "Lucy", "Jane", "Emma", "Kate", "Alice", "Henry", "George", "Robert", "Michael", "Daniel",
    "Simon", "Ben", "Sam", "Tim", "Lily", "Max", "Sue", "Bob", "Jim",
)
# fmt: on
NOUNS = tuple((word, word + "s") for word in SUBJECTS)
PLACES_BESIDE = tuple(
    (f"{between} the {one}", f"{between} the {one}s")
    for between in ("near", "behind", "beside", "with")
    for one in ("car", "table", "tree", "house", "door", "book")
)
PLACES = ("store", "park", "school", "house", "garden", "river", "market", "office")
THINGS = ("book", "drink", "ball", "ring", "letter", "key", "cake", "flower")
IOI_DRAWS = 3000  # enough where one name in ten is a token; more cost seconds where none is
IOI_TEMPLATES = (
    "When {a} and {b} went to the {place}, {s} gave a {thing} to",
    "Then {a} and {b} went to the {place}, and {s} gave a {thing} to",
    "After {a} and {b} came to the {place}, {s} handed a {thing} to",
    "While {a} and {b} were at the {place}, {s} showed a {thing} to",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """Token pairs of one task; shorter prompts are filled up at the end, where nothing looks.

    Raises
    ------
    ValueError
        If shapes do not agree, there is no pair, or the answers of a pair are equal.
    """

    task: str
    clean: Int[Tensor, "N T"]
    patch: Int[Tensor, "N T"]
    last: Int[Tensor, " N"]  # position of the last token of both prompts
    clean_answer: Int[Tensor, " N"]
    patch_answer: Int[Tensor, " N"]
    dropped: int = 0  # pairs left out: answers of several tokens, prompts of two lengths

    def __post_init__(self) -> None:
        N = len(self.clean)
        if N == 0 or self.patch.shape != self.clean.shape or len(self.last) != N:
            raise ValueError(
                f"clean {tuple(self.clean.shape)}, patch {tuple(self.patch.shape)} and last "
                f"({len(self.last)}) must be of the same 1 or more pairs"
            )
        equal = (self.clean_answer == self.patch_answer).nonzero()
        if equal.numel():
            raise ValueError(f"pair {int(equal[0])} has one answer twice; leave it out")

    def __len__(self) -> int:
        return len(self.clean)

    def __getitem__(self, rows: slice) -> "Pairs":
        """Return some of the pairs."""
        return Pairs(
            task=self.task,
            clean=self.clean[rows],
            patch=self.patch[rows],
            last=self.last[rows],
            clean_answer=self.clean_answer[rows],
            patch_answer=self.patch_answer[rows],
            dropped=self.dropped,
        )


def sva_pairs(encode: Encode, *, n: int, seed: int, distractor: bool = False) -> Pairs:
    """Return pairs of subject-verb agreement: "The boys" are, "The boy" is.

    Parameters
    ----------
    encode
        From text to token ids, without special tokens at the end:
        ``lambda text: tokenizer.encode(text, add_special_tokens=False)``.
    n
        Number of pairs; fewer if the templates give no more for this tokenizer.
    seed
        Of the draw.
    distractor
        Whether a phrase of the other number stands between: "The boys near the car".

    Raises
    ------
    ValueError
        If no pair fits the tokenizer.
    """
    return _pairs("sva", _shuffled(list(_sva_texts(distractor)), seed, "sva"), encode, n)


def ioi_pairs(encode: Encode, *, n: int, seed: int) -> Pairs:
    """Return pairs of indirect object identification: the name that was said once follows.

    "When Mary and John went to the store, John gave a drink to" Mary; the patch prompt has the
    other giver. Both orders of the names are drawn. Parameters and errors as for `sva_pairs`.

    References
    ----------
    Wang et al. 2022, arXiv 2211.00593.
    """
    return _pairs("ioi", _ioi_texts(stream(seed, "ioi")), encode, n)


def induction_pairs(
    vocabulary: int, *, n: int, length: int, seed: int, exclude: Iterable[int] = ()
) -> Pairs:
    """Return pairs of random tokens said twice: what followed a token before follows it again.

    Parameters
    ----------
    vocabulary
        Tokens are drawn from [0, vocabulary), without repetition within a prompt.
    n
        Number of pairs.
    length
        Tokens that are said once, at least 2; the repetition breaks off at a random place.
    seed
        Of the draw.
    exclude
        Ids that are not drawn, such as special tokens.

    Returns
    -------
    The patch prompt differs in one token of the first half: the one that answers.

    Raises
    ------
    ValueError
        If fewer than `length` + 1 tokens can be drawn, or `length` is below 2.

    References
    ----------
    Olsson et al. 2022, arXiv 2209.11895.
    """
    ids = np.setdiff1d(np.arange(vocabulary), list(exclude))
    if length < 2 or ids.size < length + 1:
        raise ValueError(
            f"length ({length}) must be at least 2 and at most {ids.size - 1}, one less than the "
            "tokens that can be drawn"
        )
    rng = stream(seed, "induction")
    rows: list[Row] = []
    for _ in range(n):
        *said, other = rng.choice(ids, length + 1, replace=False).tolist()
        end = int(rng.integers(1, length))
        changed = [*said[:end], other, *said[end + 1 :]]
        rows.append((said + said[:end], changed + said[:end], said[end], other))
    return _stacked("induction", rows, dropped=0)


def read_pairs(path: Path | str, encode: Encode, *, task: str | None = None) -> Pairs:
    """Return the pairs of a JSON-lines file.

    Each line has `clean_prefix`, `patch_prefix`, `clean_answer` and `patch_answer`, as the files of
    Marks et al. 2024 (sparse feature circuits, arXiv 2403.19647) have; other fields are left alone.

    Parameters
    ----------
    path
        The file, UTF-8.
    encode
        As for `sva_pairs`.
    task
        Name of the task; default the file's name.

    Raises
    ------
    ValueError
        If a line is no JSON or lacks a field, or no pair fits the tokenizer.
    """
    path = Path(path)
    texts: list[Texts] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            row = json.loads(line)
            texts.append(
                (row["clean_prefix"], row["patch_prefix"], row["clean_answer"], row["patch_answer"])
            )
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path}, line {number}: {error!r}; each line must be an object with clean_prefix, "
                "patch_prefix, clean_answer and patch_answer"
            ) from error
    return _pairs(task or path.name.split(".")[0], texts, encode, len(texts))


def _sva_texts(distractor: bool) -> Iterator[Texts]:
    for one, many in NOUNS:
        for verb_one, verb_many in VERBS:
            for between in PLACES_BESIDE if distractor else (("", ""),):
                # the phrase has the number that the clean subject has not
                of_one, of_many = (f" {each}" if each else "" for each in between)
                yield f"The {one}{of_many}", f"The {many}{of_many}", f" {verb_one}", f" {verb_many}"
                yield f"The {many}{of_one}", f"The {one}{of_one}", f" {verb_many}", f" {verb_one}"


def _ioi_texts(rng: np.random.Generator) -> Iterator[Texts]:
    seen: set[Texts] = set()
    for _ in range(IOI_DRAWS):
        first, second = (NAMES[i] for i in rng.choice(len(NAMES), 2, replace=False))
        words = {"place": str(rng.choice(PLACES)), "thing": str(rng.choice(THINGS))}
        template = str(rng.choice(IOI_TEMPLATES))
        giver, receiver = (first, second) if rng.random() < 0.5 else (second, first)
        clean, patch = (template.format(a=first, b=second, s=s, **words) for s in (giver, receiver))
        texts = clean, patch, f" {receiver}", f" {giver}"
        if texts not in seen:
            seen.add(texts)
            yield texts


def _shuffled(texts: list[Texts], seed: int, name: str) -> list[Texts]:
    return [texts[i] for i in stream(seed, name).permutation(len(texts))]


def _pairs(task: str, texts: Iterable[Texts], encode: Encode, n: int) -> Pairs:
    """Keep the first n pairs that fit the tokenizer."""
    rows: list[Row] = []
    dropped = 0
    for clean, patch, clean_answer, patch_answer in texts:
        if len(rows) == n:
            break
        prompts = list(encode(clean)), list(encode(patch))
        answers = (
            _answer(encode, clean, prompts[0], clean_answer),
            _answer(encode, clean, prompts[0], patch_answer),
        )
        fits = len(prompts[0]) == len(prompts[1]) and answers[0] != answers[1]
        if fits and answers[0] is not None and answers[1] is not None:
            rows.append((*prompts, answers[0], answers[1]))
        else:
            dropped += 1
    if not rows:
        raise ValueError(
            f"none of {dropped} {task} pairs fits: this tokenizer splits their answers or gives "
            "prompts of unequal length; read_pairs takes your own"
        )
    return _stacked(task, rows, dropped=dropped)


def _answer(encode: Encode, prompt: str, ids: list[int], answer: str) -> int | None:
    """Return the token that continues a prompt with an answer, None if it is not just one."""
    whole = list(encode(prompt + answer))
    return whole[-1] if whole[:-1] == ids else None


def _stacked(task: str, rows: list[Row], *, dropped: int) -> Pairs:
    width = max(len(row[0]) for row in rows)

    def filled(ids: list[int]) -> list[int]:
        return ids + [ids[-1]] * (width - len(ids))

    return Pairs(
        task=task,
        clean=torch.tensor([filled(row[0]) for row in rows]),
        patch=torch.tensor([filled(row[1]) for row in rows]),
        last=torch.tensor([len(row[0]) - 1 for row in rows]),
        clean_answer=torch.tensor([row[2] for row in rows]),
        patch_answer=torch.tensor([row[3] for row in rows]),
        dropped=dropped,
    )
