"""Samples from a Hugging Face causal language model, on CPU or CUDA; needs the extra `hf`.

- all samples of a call run in batches of similar prompt length, padded on the left, with a cache
- a prompt is computed once for all of its samples; a sample that ends leaves the batch
- a sample does not depend on its neighbours, up to the rounding of the logits
"""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from meristem_testtime._engine import (
    UNWATCHED,
    Capability,
    Completion,
    ContextFullError,
    Pair,
    Request,
    Watch,
)
from meristem_testtime._growing import Sample, planted, settle


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
    capabilities: frozenset[Capability] = frozenset(
        {"continue", "scores", "abort", "top_k", "confidence"}
    )

    def __init__(self, model: Any, tokenizer: Any, *, name: str, max_batch: int = 64) -> None:
        if tokenizer.eos_token_id is None:
            raise ValueError("the tokenizer has no eos_token; set one, or samples never end")
        if max_batch < 1:
            raise ValueError(f"max_batch ({max_batch}) must be at least 1")
        self.model = model
        self.tokenizer = tokenizer
        self.max_batch: int | None = max_batch
        accepted = inspect.signature(model.forward).parameters
        self._cache = "cache" if "cache" in accepted else "past_key_values"  # transformers < 5.24
        self._last = {"logits_to_keep": 1} if "logits_to_keep" in accepted else {}
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

    async def generate(
        self, requests: Sequence[Request], watches: Mapping[int, Watch] = UNWATCHED
    ) -> list[list[Completion]]:
        """Return the samples of each request."""
        for request in requests:
            if not request.prompt:
                raise ValueError("the prompt is empty; give at least one token")
            if self.context is not None and len(request.prompt) + request.max_tokens > self.context:
                raise ContextFullError(len(request.prompt), request.max_tokens, self.context)
        groups = planted(requests)
        rows = sorted(
            (sample for group in groups for sample in group),
            key=lambda sample: len(sample.request.prompt),
        )
        size = self.max_batch or len(rows)
        for start in range(0, len(rows), size):
            living = [row for row in rows[start : start + size] if row.finish is None]
            if living:
                self._run(living, groups, watches)
        return [[sample.completion() for sample in group] for group in groups]

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
    def _run(
        self,
        rows: list[Sample],
        groups: Sequence[Sequence[Sample]],
        watches: Mapping[int, Watch],
    ) -> None:
        """Let `rows` grow to their ends."""
        prompts = {row.request.prompt: None for row in rows}
        mask, logits, cache = self._read(list(prompts))
        places = {prompt: place for place, prompt in enumerate(prompts)}
        chosen = [
            places[row.request.prompt] for row in rows
        ]  # row of the cache that each sample has
        logits = logits[chosen]
        while True:
            logprobs = torch.log_softmax(logits.double(), -1).cpu().numpy()
            for row, values in zip(rows, logprobs, strict=True):
                row.extend(values, self._end, self.decode)
            settle(rows, groups, watches)
            chosen = [place for place, row in zip(chosen, rows, strict=True) if row.finish is None]
            rows = [row for row in rows if row.finish is None]
            if not rows:
                return
            if chosen != list(range(len(mask))):
                index = torch.tensor(chosen, device=mask.device)
                cache.batch_select_indices(index)
                mask, chosen = mask[index], list(range(len(rows)))
            ids = torch.tensor([[row.ids[-1]] for row in rows], device=mask.device)
            mask = torch.cat([mask, torch.ones_like(ids)], 1)
            logits, cache = self._forward(ids, mask, cache)

    def _read(self, prompts: list[tuple[int, ...]]) -> tuple[torch.Tensor, torch.Tensor, Any]:
        """Return mask, logits of the next token, and cache of prompts, padded on the left."""
        width = max(map(len, prompts))
        pad = [width - len(prompt) for prompt in prompts]
        device = self.model.device
        ids = torch.tensor(
            [[self._end] * p + list(prompt) for p, prompt in zip(pad, prompts, strict=True)],
            device=device,
        )
        mask = torch.tensor([[0] * p + [1] * (width - p) for p in pad], device=device)
        return mask, *self._forward(ids, mask, None)

    def _forward(
        self, ids: torch.Tensor, mask: torch.Tensor, cache: Any
    ) -> tuple[torch.Tensor, Any]:
        positions = (mask.cumsum(-1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        out = self.model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            use_cache=True,
            **{self._cache: cache},
            **self._last,
        )
        return out.logits[:, -1], out[self._cache]
