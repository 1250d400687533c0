"""Demonstrations, pairs, labelled responses and rankings: from JSONL to padded rows of tokens."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from meristem_core import derive_seed, shuffled_indices
from meristem_core.command import UsageError
from meristem_posttrain._config import PosttrainConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """The fields of a line besides its prompt."""

    responses: tuple[str, ...]  # one response each; "ranked" holds a list of them, best first
    value: str | None = None  # "label", true or false; "probability" from 0 to 1

    @property
    def fields(self) -> tuple[str, ...]:
        """Return the names of all fields."""
        return ("prompt", *self.responses, *([] if self.value is None else [self.value]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """One example: a prompt, its responses in the order of the form, and its value."""

    prompt: list[int]
    responses: tuple[list[int], ...]
    value: float | None = None  # a label as 0 or 1, or a probability


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Right-padded rows: the first response of all N examples, then the second of all, ..."""

    ids: Int[Tensor, "B S"]
    attention: Int[Tensor, "B S"]
    response: Bool[Tensor, "B S"]
    values: Float[Tensor, " N"] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """The examples of a run."""

    train: list[Encoded]
    held_out: list[Encoded]
    left_out: int  # how many are longer than the limit


def read_records(path: Path, form: Form) -> list[dict[str, Any]]:
    """Return the objects of a JSONL file, each with the fields of the form.

    Raises
    ------
    UsageError
        A line that is no object with those fields, a label or probability that is none, or a
        ranking that is not as long as the others; names the line.
    """
    records: list[dict[str, Any]] = []
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                record = msgspec.json.decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise UsageError(f"{path}:{number}: not JSON ({error}); mend the line") from error
            missing = [f for f in form.fields if not isinstance(record, dict) or f not in record]
            if missing:
                raise UsageError(
                    f"{path}:{number}: no {missing[0]}; a line for this loss has "
                    f"{', '.join(form.fields)}"
                )
            _check(f"{path}:{number}", record, form, records)
            records.append(record)
    return records


def encode(record: dict[str, Any], form: Form, tokenizer: Any) -> Encoded:
    """Return the tokens of a record by a Hugging Face tokenizer; responses end with its eos token.

    Raises
    ------
    UsageError
        An empty prompt, or messages for a tokenizer without a chat template.
    """
    prompt = record["prompt"]
    if isinstance(prompt, list):
        if tokenizer.chat_template is None:
            raise UsageError("the prompts are messages, but the tokenizer has no chat template")
        text = tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)
        tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
    else:
        tokens = tokenizer(prompt)["input_ids"]
        if tokens and tokens[-1] == tokenizer.eos_token_id:
            tokens = tokens[:-1]
    if not tokens:
        raise UsageError(f"a prompt has no tokens ({prompt!r}); give it at least one")
    ranked = form.responses == ("ranked",)
    texts = record["ranked"] if ranked else [record[name] for name in form.responses]
    return Encoded(
        prompt=list(tokens),
        responses=tuple(_response(text, tokenizer) for text in texts),
        value=None if form.value is None else float(record[form.value]),
    )


def read_split(config: PosttrainConfig, form: Form, tokenizer: Any) -> Split:
    """Return the examples of a run's file, some of them held out.

    Raises
    ------
    UsageError
        A line that `read_records` or `encode` refuses, or fewer than 2 examples that fit.
    """
    every = [encode(record, form, tokenizer) for record in read_records(config.data, form)]
    short = [example for example in every if length(example) <= config.max_length]
    if len(short) < 2:
        raise UsageError(
            f"--data {config.data}: {len(short)} examples of at most {config.max_length} tokens; "
            "at least 2 are needed, one of them is held out"
        )
    order = shuffled_indices(len(short), 0, len(short), seed=derive_seed(config.seed, "split"))
    count = min(max(1, round(config.held_out * len(short))), len(short) - 1)
    return Split(
        train=[short[i] for i in sorted(order[count:])],
        held_out=[short[i] for i in sorted(order[:count])],
        left_out=len(every) - len(short),
    )


def pad(examples: Sequence[Encoded], padding: int) -> Rows:
    """Return the rows of examples: the first response of each, then the second of each."""
    kinds = range(len(examples[0].responses))
    rows = [(e.prompt, e.responses[k]) for k in kinds for e in examples]
    width = max(len(p) + len(r) for p, r in rows)
    ids = torch.full((len(rows), width), padding)
    attention, response = torch.zeros_like(ids), torch.zeros_like(ids, dtype=torch.bool)
    for i, (p, r) in enumerate(rows):
        ids[i, : len(p) + len(r)] = torch.tensor([*p, *r])
        attention[i, : len(p) + len(r)] = 1
        response[i, len(p) : len(p) + len(r)] = True
    values = [e.value for e in examples if e.value is not None]
    return Rows(
        ids=ids,
        attention=attention,
        response=response,
        values=torch.tensor(values) if values else None,
    )


def length(example: Encoded) -> int:
    """Return the tokens of an example's longest row."""
    return len(example.prompt) + max(map(len, example.responses))


def _check(
    place: str, record: dict[str, Any], form: Form, before: Sequence[dict[str, Any]]
) -> None:
    if form.value == "label" and not isinstance(record["label"], bool):
        raise UsageError(f"{place}: label is {record['label']!r}; write true or false")
    if form.value == "probability":
        value = record["probability"]
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 1:
            raise UsageError(f"{place}: probability is {value!r}; write a number from 0 to 1")
    if "ranked" in form.responses:
        found = record["ranked"]
        wanted = len(before[0]["ranked"]) if before else None
        if not isinstance(found, list) or len(found) < 2 or wanted not in (None, len(found)):
            rule = f"all lists have the {wanted}" if wanted else "a list has at least 2"
            size = len(found) if isinstance(found, list) else repr(found)
            raise UsageError(f"{place}: ranked has {size} responses; {rule}, best first")


def _response(value: Any, tokenizer: Any) -> list[int]:
    text = value[-1]["content"] if isinstance(value, list) else value
    if not isinstance(text, str):
        raise UsageError(f"a response is {value!r}; give a text or a list of messages")
    tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
    return [*tokens, tokenizer.eos_token_id]
