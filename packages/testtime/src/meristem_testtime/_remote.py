"""JSON requests to a server, with retries.

- refused connections, timeouts, 429 and 5xx are tried again, other answers never
- `Retry-After` is obeyed; else waits double, with jitter, so that clients do not come in step
"""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, cast
from urllib.parse import urlsplit

import aiohttp

from meristem_testtime._engine import EngineError
from meristem_testtime._loop import LoopThread

RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504})
FIRST_WAIT, LONGEST_WAIT = 0.25, 60.0  # seconds
SHOWN = 300  # characters of a server's message in an error
Take = Callable[[dict[str, Any]], bool]
Begin = Callable[[], Take]


class RefusedError(EngineError):
    """A server's answer that is never tried again.

    Parameters
    ----------
    status
        Of HTTP.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class Transport:
    """JSON requests to one server.

    Parameters
    ----------
    url
        Base of the paths, such as http://localhost:8000/v1.
    key
        Sent as a bearer token.
    timeout
        Seconds to wait for an answer.
    retries
        Tries after the first.
    concurrency
        Most requests in flight.
    """

    def __init__(
        self, url: str, *, key: str | None, timeout: float | int, retries: int, concurrency: int
    ) -> None:
        if not url.startswith(("http://", "https://")) or not urlsplit(url).hostname:
            raise ValueError(f"url is {url!r}; it starts with http:// or https:// and a host")
        if concurrency < 1 or retries < 0 or not timeout > 0:
            raise ValueError(
                f"concurrency ({concurrency}) must be at least 1, retries ({retries}) at least 0, "
                f"timeout ({timeout}) above 0"
            )
        self.url, self.timeout, self.retries = url.rstrip("/"), timeout, retries
        self._free = asyncio.Semaphore(concurrency)
        self._loop = LoopThread()
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._session = self._loop.wait(_opened(headers, timeout, concurrency))

    async def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Return the server's answer.

        Raises
        ------
        EngineError
            If it refuses the request, or no try is left.
        """
        return self._parsed(await self._loop.run(self._tried(path, body, self._answer)))

    async def stream(self, path: str, body: dict[str, Any], begin: Begin) -> None:
        """Read what the server sends, event by event; cancelling this ends it there.

        Parameters
        ----------
        begin
            Called at each try; returns what takes an event, and says whether it is enough.

        Raises
        ------
        EngineError
            As for `post`, or if the server reports an error in the middle.
        """

        async def read(path: str, body: dict[str, Any]) -> _Answer:
            return await self._events(path, body, begin())

        await self._loop.run(self._tried(path, body | {"stream": True}, read))

    def close(self) -> None:
        """Close the connections."""
        try:
            self._loop.wait(self._session.close())
        finally:
            self._loop.close()

    async def _tried(
        self,
        path: str,
        body: dict[str, Any],
        read: "Callable[[str, dict[str, Any]], Awaitable[_Answer]]",
    ) -> "_Answer":
        cause = ""
        for attempt in range(self.retries + 1):
            wait = min(FIRST_WAIT * 2**attempt, LONGEST_WAIT) * random.SystemRandom().uniform(
                0.5, 1
            )
            try:
                async with self._free:
                    answer = await read(path, body)
            except TimeoutError:
                cause = f"no answer within {self.timeout:g} s"
            except aiohttp.ClientError as error:
                cause = f"{type(error).__name__}: {error}"
            else:
                if 200 <= answer.status < 300:
                    return answer
                cause = f"HTTP {answer.status}: {_message(answer)}"
                if answer.status not in RETRIED:
                    raise RefusedError(f"{self.url}{path}: {cause}", answer.status)
                asked = retry_after(answer.retry_after)
                if asked is not None and asked > LONGEST_WAIT:
                    raise EngineError(
                        f"{self.url}{path}: {cause}; it asks to wait {asked:.0f} s, more than "
                        f"{LONGEST_WAIT:.0f}: come back later, a journal goes on from here"
                    )
                wait = wait if asked is None else asked
            if attempt < self.retries:
                await asyncio.sleep(wait)
        raise EngineError(
            f"{self.url}{path}: {cause}, after {self.retries + 1} tries; check that the server "
            "runs, then start again: a journal goes on from here"
        )

    async def _answer(self, path: str, body: dict[str, Any]) -> "_Answer":
        async with self._session.post(self.url + path, json=body) as answer:
            return _Answer(answer.status, answer.headers.get("Retry-After"), await answer.read())

    async def _events(self, path: str, body: dict[str, Any], take: Take) -> "_Answer":
        async with self._session.post(self.url + path, json=body) as answer:
            retry_after = answer.headers.get("Retry-After")
            if answer.status >= 300:
                return _Answer(answer.status, retry_after, await answer.read())
            async for line in _lines(answer.content):
                data = line.removeprefix(b"data:").strip()
                if not line.startswith(b"data:") or data == b"[DONE]":
                    continue
                event = self._parsed(_Answer(answer.status, None, data))
                if "error" in event:
                    raise EngineError(f"{self.url}{path}: {_message(_Answer(0, None, data))}")
                if take(event):
                    break
            return _Answer(answer.status, retry_after, b"")

    def _parsed(self, answer: "_Answer") -> dict[str, Any]:
        found = _json(answer)
        if found is None:
            raise EngineError(f"{self.url}: not a JSON object but {answer.text!r}")
        return found


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    retry_after: str | None
    body: bytes

    @property
    def text(self) -> str:
        """Return the beginning, for a message."""
        return self.body.decode(errors="replace")[:SHOWN]


async def _lines(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Yield lines of any length; aiohttp's own are limited."""
    rest = b""
    async for chunk in content.iter_any():
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line


async def _opened(
    headers: dict[str, str], timeout: float | int, concurrency: int
) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        headers=headers,
        timeout=aiohttp.ClientTimeout(total=timeout),
        connector=aiohttp.TCPConnector(limit=concurrency),
    )


def retry_after(header: str | None) -> float | None:
    """Return the seconds that a Retry-After header asks for, None if it says nothing readable."""
    if header is None:
        return None
    try:
        return max(float(header), 0.0)
    except ValueError:
        pass
    try:
        moment = parsedate_to_datetime(header)
    except ValueError:
        return None
    return max((moment.astimezone(UTC) - datetime.now(UTC)).total_seconds(), 0.0)


def _json(answer: _Answer) -> dict[str, Any] | None:
    try:
        found = json.loads(answer.body)
    except ValueError:
        return None
    return cast("dict[str, Any]", found) if isinstance(found, dict) else None


def _message(answer: _Answer) -> str:
    """Return what the server says is wrong."""
    found = _json(answer) or {}
    error = found.get("error", found.get("message", found.get("detail")))
    said = cast("dict[str, Any]", error).get("message") if isinstance(error, dict) else error
    return str(said or answer.text)[:SHOWN]
