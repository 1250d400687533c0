"""The file of questions; every complaint names line and column."""

from dataclasses import dataclass
from json import JSONDecodeError, loads
from pathlib import Path

import msgspec

from meristem_core.command import UsageError

LETTERS = "ABCDEFGHIJ"


class Line(msgspec.Struct, frozen=True, forbid_unknown_fields=False):
    """One line of the file."""

    id: str | int
    question: str
    answer: str | int | float
    options: list[str] = []


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A question as it is asked."""

    id: str
    text: str
    answer: str
    has_options: bool


def read_questions(path: Path, limit: int | None) -> list[Question]:
    """Return the questions in `path`, at most `limit`.

    Raises
    ------
    UsageError
        If a line is no question or an id stands twice; names file, line and column.
    """
    if limit is not None and limit < 2:
        raise UsageError(f"--limit {limit}: an interval needs 2 questions or more")
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise UsageError(f"{path} not found; give a file of JSON lines") from None
    seen: dict[str, int] = {}
    found: list[Question] = []
    for number, content in enumerate(data.split(b"\n"), 1):
        if not content.strip():
            continue
        question = _question(path, number, content)
        if question.id in seen:
            raise UsageError(
                f"{path}:{number}:{content.find(b'id') + 1}: id {question.id!r} is also on line "
                f"{seen[question.id]}; give every question an id of its own"
            )
        seen[question.id] = number
        found.append(question)
        if len(found) == limit:
            break
    if len(found) < 2:
        raise UsageError(f"{path} holds {len(found)} questions; an interval needs 2 or more")
    return found


class _NoJsonError(Exception):
    """NaN or Infinity, which Python reads and JSON does not have."""


def _refused(word: str) -> None:
    raise _NoJsonError(word)


def _question(path: Path, number: int, content: bytes) -> Question:
    try:
        line = msgspec.convert(
            loads(content.decode(), parse_constant=_refused), Line
        )  # json says where it fails, msgspec does not
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}:{number}:{error.start + 1}: not UTF-8; mend the line") from None
    except JSONDecodeError as error:
        raise UsageError(f"{path}:{number}:{error.colno}: {error.msg}; mend the line") from None
    except _NoJsonError as error:
        column = content.find(str(error).encode()) + 1
        raise UsageError(f"{path}:{number}:{column}: {error} is no JSON; mend the line") from None
    except msgspec.ValidationError as error:
        raise UsageError(f"{path}:{number}:1: {error}; mend the line") from None
    for name in ("id", "question", "answer"):
        if not str(getattr(line, name)).strip():
            raise UsageError(f"{path}:{number}:{content.find(name.encode()) + 1}: {name} is empty")
    if len(line.options) > len(LETTERS):
        raise UsageError(
            f"{path}:{number}:1: {len(line.options)} options; at most {len(LETTERS)} have a letter"
        )
    options = [f"{letter}) {text}" for letter, text in zip(LETTERS, line.options, strict=False)]
    return Question(
        id=str(line.id),
        text="\n".join([line.question, *options]),
        answer=str(line.answer),
        has_options=bool(options),
    )
