"""JSON that says where a value is wrong, and a stable digest of a configuration.

- dataclasses, mappings, enums, paths, NumPy scalars and arrays become plain JSON values
- a number that is not finite is refused by name, because JSON has no NaN
- one canonical text per value: keys sorted, no spaces, ASCII; its SHA-256 is the digest
"""

import dataclasses
import enum
import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any, cast

import numpy as np

from meristem_core._files import write_atomic

NOT_JSON = re.compile(r'"(?:[^"\\]|\\.)*"|(-?Infinity|NaN)')  # group 1: outside of strings


def write_json(path: Path | str, value: object) -> None:
    """Write `value` to `path` as indented JSON, atomically.

    Parameters
    ----------
    path
        The file to write or replace; its folder exists.
    value
        Mappings with string keys, dataclasses, lists, tuples, arrays, strings, finite numbers,
        booleans, None, NumPy scalars, paths (as text) and enums (as their name).

    Raises
    ------
    ValueError
        If a number is not finite or a string holds half a surrogate pair, with its place.
    TypeError
        If a value or key has no JSON form, with its place.
    OSError
        If the file cannot be written; the old one is unchanged.

    Examples
    --------
    >>> write_json("never-written.json", {"rows": [{"measured": 1.0}, {"measured": np.nan}]})
    Traceback (most recent call last):
    ValueError: rows[1].measured is nan; JSON holds finite numbers only, so store None and say why
    """
    write_atomic(path, json.dumps(plain(value), indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path | str) -> Any:
    """Return the value that the JSON file at `path` holds.

    Raises
    ------
    ValueError
        If the file is not strict JSON in UTF-8; names file, line and column.
    OSError
        If the file is missing or cannot be read.
    """
    try:
        data = Path(path).read_bytes()
    except FileNotFoundError as error:
        raise FileNotFoundError(
            error.errno, f"{path} not found; give the path of an existing JSON file"
        ) from None
    return parse(data, str(path))


def digest(value: object) -> str:
    """Return 64 hexadecimal digits that depend on the JSON form of `value` alone.

    Parameters
    ----------
    value
        As for `write_json`. The order of keys is irrelevant; 1, 1.0 and True are three values.

    Raises
    ------
    ValueError, TypeError
        As `write_json`.

    Examples
    --------
    >>> digest({"a": 1, "b": (2,)}) == digest({"b": [2], "a": 1})
    True
    >>> digest(1) == digest(1.0)
    False
    """
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def canonical(value: object) -> str:
    """Return the one text that stands for `value`: sorted keys, no spaces, ASCII only."""
    return json.dumps(plain(value), sort_keys=True, separators=(",", ":"))


def line_of(value: object) -> bytes:
    """Return `value` as one line of JSON in UTF-8, newline included."""
    return (json.dumps(plain(value), ensure_ascii=False) + "\n").encode()


def plain(value: object, place: str = "") -> object:
    """Return `value` built of dict, list, str, int, float, bool and None only."""
    match value:
        case None | bool():
            return value
        case enum.Enum():
            return value.name
        case str():
            return _text(value, place)
        case int():
            return value
        case float():
            return _finite(value, place)
        case np.generic() | np.ndarray():
            return _unboxed(cast("np.generic | np.ndarray", value), place)
        case PurePath():
            return _text(str(value), place)
        case Mapping():
            items = cast("Mapping[object, object]", value).items()
            return {_key(key, place): plain(item, _dot(place, key)) for key, item in items}
        case list() | tuple():
            items = enumerate(cast("Sequence[object]", value))
            return [plain(item, f"{place}[{i}]") for i, item in items]
        case _ if dataclasses.is_dataclass(value) and not isinstance(value, type):
            names = [field.name for field in dataclasses.fields(value)]
            return {name: plain(getattr(value, name), _dot(place, name)) for name in names}
        case _:
            raise _no_form(value, place)


def parse(data: bytes, name: str, *, line: int = 1) -> Any:
    """Return the strict JSON value in `data`; errors say `name`:line:column.

    Parameters
    ----------
    data
        JSON in UTF-8.
    name
        What errors call the file.
    line
        Number of the first line of `data` within the file, from 1.
    """
    try:
        return json.loads(data.decode(), parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        before = data[: error.start]
        rule, position = "byte is not UTF-8", (before.count(b"\n"), _column(before))
    except json.JSONDecodeError as error:
        rule, position = error.msg, (error.lineno - 1, error.colno)
    except _ConstantError as error:
        before = data[: _constant_at(data)]
        rule, position = f"{error} is not JSON", (before.count(b"\n"), _column(before))
    except (RecursionError, ValueError) as error:
        rule, position = f"JSON too large to read ({error})", (0, 1)
    row, column = position
    raise ValueError(f"{name}:{line + row}:{column}: {rule}; mend the file or delete it")


class _ConstantError(Exception):
    """NaN or an infinity met by the parser, which does not say where."""


def _refuse_constant(name: str) -> object:
    raise _ConstantError(name)


def _constant_at(data: bytes) -> int:
    text = data.decode()
    found = next(match for match in NOT_JSON.finditer(text) if match.group(1))
    return len(text[: found.start()].encode())


def _column(before: bytes) -> int:
    return len(before.rpartition(b"\n")[2].decode()) + 1


def _finite(value: float, place: str) -> float:
    if math.isfinite(value):
        return float(value)
    raise ValueError(
        f"{place or 'value'} is {value}; JSON holds finite numbers only, so store None and say why"
    )


def _text(value: str, place: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{place or 'value'} holds half a surrogate pair at character {error.start}; "
            "decode the text with errors='replace'"
        ) from None
    return value


def _unboxed(value: np.generic | np.ndarray, place: str) -> object:
    unboxed: object = value.tolist()
    if isinstance(unboxed, np.generic):  # longdouble and structured scalars stay boxed
        raise _no_form(value, place)
    return plain(unboxed, place)


def _key(key: object, place: str) -> str:
    if not isinstance(key, str):
        raise TypeError(
            f"key {key!r} of {place or 'value'} is of type {type(key).__name__}; "
            "JSON keys are strings, so convert it"
        )
    return _text(key, f"key {key!a} of {place or 'value'}")


def _dot(place: str, name: object) -> str:
    return f"{place}.{name}" if place else str(name)


def _no_form(value: object, place: str) -> TypeError:
    return TypeError(
        f"{place or 'value'} is of type {type(value).__name__}, which has no JSON form; "
        "give numbers, strings, booleans, None, lists, mappings, arrays or dataclasses"
    )
