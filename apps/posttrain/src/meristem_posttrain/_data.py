"""Demonstrations and pairs: from JSONL to padded rows of tokens."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from meristem_core.command import UsageError

ANSWERS = {"sft": ("completion",), "dpo": ("chosen", "rejected")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """One example: a prompt and its responses (one for sft; chosen, rejected for dpo)."""

    prompt: list[int]
    responses: tuple[list[int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Right-padded rows; for pairs all chosen, then all rejected."""

    ids: Int[Tensor, "B S"]
    attention: Int[Tensor, "B S"]
    response: Bool[Tensor, "B S"]


def read_records(path: Path, stage: Literal["sft", "dpo"]) -> list[dict[str, Any]]:
    """Return the objects of a JSONL file, each with the fields of its stage.

    Raises
    ------
    UsageError
        A line that is no object with those fields; names the line.
    """
    records = []
    fields = ("prompt", *ANSWERS[stage])
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                record = msgspec.json.decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise UsageError(f"{path}:{number}: not JSON ({error}); mend the line") from error
            missing = [f for f in fields if not isinstance(record, dict) or f not in record]
            if missing:
                raise UsageError(
                    f"{path}:{number}: no {missing[0]}; a line for {stage} has {', '.join(fields)}"
                )
            records.append(record)
    return records


def encode(record: dict[str, Any], stage: Literal["sft", "dpo"], tokenizer: Any) -> Encoded:
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
    return Encoded(
        prompt=list(tokens),
        responses=tuple(_response(record[name], tokenizer) for name in ANSWERS[stage]),
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
    return Rows(ids=ids, attention=attention, response=response)


def length(example: Encoded) -> int:
    """Return the tokens of an example's longest row."""
    return len(example.prompt) + max(map(len, example.responses))


def _response(value: Any, tokenizer: Any) -> list[int]:
    text = value[-1]["content"] if isinstance(value, list) else value
    if not isinstance(text, str):
        raise UsageError(f"a response is {value!r}; give a text or a list of messages")
    tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
    return [*tokens, tokenizer.eos_token_id]
