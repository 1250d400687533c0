"""What engines over a server share: connections, watches, and the shape of an answer."""

from collections.abc import Sequence
from types import TracebackType
from typing import Any

from meristem_testtime._engine import EngineError
from meristem_testtime._remote import Transport

SEEDS = 2**63  # servers read a seed as a signed 64-bit number


class Server:
    """What both engines share: a transport, and that they are to be closed."""

    concurrent = True
    max_batch: int | None = None

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        api_key: str | None = None,
        timeout: float | int = 600,
        retries: int = 6,
        concurrency: int = 64,
    ) -> None:
        self.model = model
        self._transport = Transport(
            base_url, key=api_key, timeout=timeout, retries=retries, concurrency=concurrency
        )

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def choices_of(answer: dict[str, Any], n: int, identity: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] | None = answer.get("choices")
    if not found or len(found) != n:
        got = len(found) if found else "no"
        raise EngineError(
            f"engine {identity} gave {got} samples for n = {n}; use a server that takes n"
        )
    return sorted(found, key=lambda choice: choice.get("index", 0))


def part(record: dict[str, Any], name: str) -> dict[str, Any]:
    """Return an object inside of a JSON object, an empty one if it is absent or null."""
    return record.get(name) or {}


def choices_in(events: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the choices of the events of a stream, in order."""
    found: list[dict[str, Any]] = []
    for event in events:
        found += event.get("choices") or []
    return found
