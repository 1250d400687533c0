"""Text as rows of token ids: what the crosscoder is trained on, and what it is measured on."""

import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int, Integer
from transformers import PreTrainedTokenizerBase

from meristem_core import stream
from meristem_core.command import UsageError
from meristem_core.corpus import read_documents


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """Rows of tokens and what the tokens are."""

    train: Integer[np.ndarray, "N T"]
    held_out: Integer[np.ndarray, "M T"]
    vocabulary: Sequence[bytes]
    special: tuple[int, ...]  # ids that stand for no text, such as the end of a document


Encode = Callable[[str], Sequence[int]]


def read_rows(
    sources: Sequence[str],
    encode: Encode,
    *,
    end: int | None,
    context: int,
    tokens: int,
    encoding: str = "utf-8",
) -> Int[np.ndarray, "N T"]:
    """Return rows of `context` tokens from the sources in equal parts, at most `tokens` in all.

    Documents follow each other, each closed by `end` if there is one; nothing is padded.

    Raises
    ------
    UsageError
        If a source cannot be read or has less than one row.
    """
    share = tokens // len(sources)
    parts: list[np.ndarray] = []
    for source in sources:
        try:
            ids = np.fromiter(
                itertools.islice(_ids(source, encode, end, encoding), share), dtype=np.int64
            )
        except (OSError, ValueError, ImportError) as error:
            raise UsageError(f"--corpus {source}: {error}") from error
        rows = len(ids) // context
        if rows < 2:
            raise UsageError(
                f"--corpus {source} gives {len(ids)} tokens, fewer than two rows of {context}; "
                "give more text"
            )
        parts.append(ids[: rows * context].reshape(rows, context))
    return np.concatenate(parts)


def split_rows(
    rows: Int[np.ndarray, "N T"], *, held_out_tokens: int, seed: int
) -> tuple[Int[np.ndarray, "n T"], Int[np.ndarray, "m T"]]:
    """Return the rows in a drawn order, those to train on and those to measure on.

    At most a fifth of a small corpus is held out.
    """
    order = stream(seed, "rows").permutation(len(rows))
    held_out = min(-(-held_out_tokens // rows.shape[1]), max(1, len(rows) // 5))
    return rows[order[held_out:]], rows[order[:held_out]]


def token_bytes(tokenizer: PreTrainedTokenizerBase) -> list[bytes]:
    """Return the bytes of every token; a token of a byte-level vocabulary may be part of a letter.

    Byte-level vocabularies (GPT-2's) and those of SentencePiece are read exactly; any other token
    is what the tokenizer decodes it to.
    """
    names = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    special = set(tokenizer.all_special_tokens)
    if _is_byte_level(tokenizer):
        letters = byte_letters()
        return [
            name.encode() if name in special or not set(name) <= letters.keys()
            else bytes(letters[letter] for letter in name)
            for name in names
        ]  # fmt: skip
    return [_piece(tokenizer, name) for name in names]


def byte_letters() -> dict[str, int]:
    """Return the letter that byte-level vocabularies write for each byte.

    Printable letters of Latin-1 stand for themselves, the others for 256 and above in order
    (Radford et al. 2019, GPT-2).
    """
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    shifted = {chr(256 + place): byte for place, byte in enumerate(others)}
    return {chr(byte): byte for byte in plain} | shifted


def _is_byte_level(tokenizer: PreTrainedTokenizerBase) -> bool:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return False
    return '"ByteLevel"' in json.dumps(json.loads(backend.to_str())["decoder"])


def _piece(tokenizer: PreTrainedTokenizerBase, name: str) -> bytes:
    if len(name) == 6 and name.startswith("<0x") and name.endswith(">"):
        return bytes([int(name[3:5], 16)])
    if "▁" in name:
        return name.replace("▁", " ").encode()
    return tokenizer.convert_tokens_to_string([name]).encode()


def _ids(source: str, encode: Encode, end: int | None, encoding: str) -> Iterator[int]:
    for document in read_documents(source, encoding=encoding):
        yield from encode(document.text)
        if end is not None:
            yield end


def load_text(folder: Path, vocabulary: Sequence[bytes], special: tuple[int, ...]) -> Text:
    """Return what `save_rows` wrote, memory-mapped."""
    train, held_out = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("train", "held"))
    return Text(train=train, held_out=held_out, vocabulary=vocabulary, special=special)


def save_rows(folder: Path, train: np.ndarray, held_out: np.ndarray) -> None:
    """Write the rows of both splits."""
    np.save(folder / "train.npy", train.astype(np.int32))
    np.save(folder / "held.npy", held_out.astype(np.int32))
