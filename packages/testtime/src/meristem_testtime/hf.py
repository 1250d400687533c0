"""Samples from a Hugging Face causal language model, on CPU or CUDA; needs the extra `hf`.

- all samples of a call run in batches of similar prompt length, padded on the left, with a cache
- one uniform number for each (seed, position), inverted through the cumulative probabilities: a
  sample does not depend on its neighbours, up to the rounding of the logits
"""

import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from meristem_core import stream
from meristem_testtime._engine import (
    Capability,
    Completion,
    ContextFullError,
    Finish,
    Pair,
    Request,
)


class HFEngine:
    """An engine over a model and its tokenizer.

    Parameters
    ----------
    model
        A causal language model, as `transformers.AutoModelForCausalLM` loads it.
    tokenizer
        Its tokenizer; `eos_token_id` ends a sample.
    name
        What the journal calls the model; change it when the weights change.
    max_batch
        Most samples that run together.

    Raises
    ------
    ValueError
        If the tokenizer has no end token, or a request does not fit into the context.
    """

    concurrent = False
    capabilities: frozenset[Capability] = frozenset({"continue", "scores"})

    def __init__(self, model: Any, tokenizer: Any, *, name: str, max_batch: int = 64) -> None:
        if tokenizer.eos_token_id is None:
            raise ValueError("the tokenizer has no eos_token; set one, or samples never end")
        if max_batch < 1:
            raise ValueError(f"max_batch ({max_batch}) must be at least 1")
        self.model = model
        self.tokenizer = tokenizer
        self.max_batch = max_batch
        self.context: int | None = getattr(model.config, "max_position_embeddings", None)
        self._name = name
        self._end = int(tokenizer.eos_token_id)

    @property
    def identity(self) -> str:
        """Return the model's name."""
        return f"hf:{self._name}"

    def encode(self, text: str) -> tuple[int, ...]:
        """Return the token ids of `text`, without special tokens."""
        return tuple(self.tokenizer.encode(text, add_special_tokens=False))

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of token ids, special tokens left out."""
        return self.tokenizer.decode(list(ids), skip_special_tokens=True)

    async def generate(self, requests: Sequence[Request]) -> list[list[Completion]]:
        """Return the samples of each request."""
        for request in requests:
            if not request.prompt:
                raise ValueError("the prompt is empty; give at least one token")
            if self.context is not None and len(request.prompt) + request.max_tokens > self.context:
                raise ContextFullError(len(request.prompt), request.max_tokens, self.context)
        rows = [(r, i) for r, request in enumerate(requests) for i in range(request.n)]
        rows.sort(key=lambda row: len(requests[row[0]].prompt))
        found: dict[tuple[int, int], Completion] = {}
        for start in range(0, len(rows), self.max_batch):
            batch = rows[start : start + self.max_batch]
            found.update(zip(batch, self._run([(requests[r], i) for r, i in batch]), strict=True))
        return [[found[r, i] for i in range(each.n)] for r, each in enumerate(requests)]

    async def logprobs(self, pairs: Sequence[Pair]) -> list[tuple[float, ...]]:
        """Return the log-probability of each token of each continuation."""
        return [self._scored(prompt, continuation) for prompt, continuation in pairs]

    @torch.no_grad()
    def _scored(self, prompt: tuple[int, ...], continuation: tuple[int, ...]) -> tuple[float, ...]:
        ids = torch.tensor([[*prompt, *continuation]], device=self.model.device)
        logits = self.model(input_ids=ids).logits[0, len(prompt) - 1 : -1].double()
        chosen = ids[0, len(prompt) :, None]
        found = torch.log_softmax(logits, -1).gather(-1, chosen)[:, 0].cpu().numpy()
        return tuple(float(value) for value in found)

    @torch.no_grad()
    def _run(self, rows: list[tuple[Request, int]]) -> list[Completion]:
        states = [_Sample(request, request.seed + i) for request, i in rows]
        width = max(len(request.prompt) for request, _ in rows)
        pad = [width - len(request.prompt) for request, _ in rows]
        device = self.model.device
        ids = torch.tensor(
            [[self._end] * p + list(r.prompt) for p, (r, _) in zip(pad, rows, strict=True)],
            device=device,
        )
        mask = torch.tensor([[0] * p + [1] * (width - p) for p in pad], device=device)
        accepted = inspect.signature(self.model.forward).parameters
        name = "cache" if "cache" in accepted else "past_key_values"  # before transformers 5.24
        cache: Any = None
        while True:
            positions = (mask.cumsum(-1) - 1).clamp(min=0)[:, -ids.shape[1] :]
            out = self.model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=positions,
                use_cache=True,
                **{name: cache},
            )
            cache = out[name]
            logprobs = torch.log_softmax(out.logits[:, -1].double(), -1).cpu().numpy()
            for state, row in zip(states, logprobs, strict=True):
                if state.finish is None:
                    self._extend(state, row)
            if all(state.finish is not None for state in states):
                return [state.completion() for state in states]
            ids = torch.tensor([[state.ids[-1]] for state in states], device=device)
            mask = torch.cat([mask, torch.ones_like(ids)], 1)

    def _extend(self, state: "_Sample", logprobs: np.ndarray) -> None:
        token = _draw(logprobs, state.request.temperature, state.seed, state.position())
        state.ids.append(token)
        state.logprobs.append(float(logprobs[token]))
        if token == self._end:
            state.finish = "end"
        elif any(stop in self.decode(state.ids) for stop in state.request.stop):
            state.finish = "stop"
        elif len(state.ids) == state.request.max_tokens:
            state.finish = "length"


class _Sample:
    """A sample while it grows."""

    def __init__(self, request: Request, seed: int) -> None:
        self.request = request
        self.seed = seed
        self.ids: list[int] = []
        self.logprobs: list[float] = []
        self.finish: Finish | None = None

    def position(self) -> int:
        """Return the place of the next token in the whole text."""
        return len(self.request.prompt) + len(self.ids)

    def completion(self) -> Completion:
        """Return the finished sample."""
        if self.finish is None:
            raise RuntimeError("the sample is still growing")
        return Completion(ids=tuple(self.ids), logprobs=tuple(self.logprobs), finish=self.finish)


def _draw(logprobs: np.ndarray, temperature: float, seed: int, position: int) -> int:
    if temperature == 0:
        return int(logprobs.argmax())
    scaled = logprobs / temperature
    cumulative: np.ndarray = np.cumsum(np.exp(scaled - scaled.max()))
    u = stream(seed, "token", position).random() * float(cumulative[-1])
    return min(int((cumulative <= u).sum()), logprobs.size - 1)
