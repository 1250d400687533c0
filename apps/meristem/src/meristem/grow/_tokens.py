"""Stage 2: a byte-level BPE tokenizer, and every split as one array of token ids.

- the tokenizer is trained on the training splits only, each domain by its weight
- documents follow each other, each closed by `<|endoftext|>`: nothing is padded
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from jaxtyping import Integer
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from meristem.grow._corpus import SPLITS, Corpus, Domain, read_split
from meristem_core.command import UsageError

END = "<|endoftext|>"
TRAINING_CHARACTERS = 20_000_000  # more text does not change the merges that a small BPE keeps
ENCODE_AT_ONCE = 256  # documents


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """Vocabulary size and token counts; the arrays lie beside as `<domain>.<split>.npy`."""

    vocabulary: int
    count: dict[str, dict[str, int]]  # domain -> split -> tokens
    characters_per_token: dict[str, float]  # domain -> on the validation split


def build_tokens(folder: Path, *, corpus: Corpus, texts: Path, vocabulary: int) -> Tokens:
    """Train the tokenizer on `texts` (the corpus stage's folder) and encode every split.

    Raises
    ------
    UsageError
        If the text has too few different byte pairs for the vocabulary.
    """
    backend = _train_bpe(corpus, texts, vocabulary)
    if backend.get_vocab_size() < vocabulary:
        raise UsageError(
            f"--corpus: the training text supports {backend.get_vocab_size()} tokens, the scale "
            f"needs a vocabulary of {vocabulary}; give more text"
        )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=END, bos_token=END)
    tokenizer.save_pretrained(folder / "tokenizer")
    count = {
        domain.name: {split: _encode(folder, texts, backend, domain, split) for split in SPLITS}
        for domain in corpus.domains
    }
    return Tokens(
        vocabulary=vocabulary,
        count=count,
        characters_per_token={
            domain.name: domain.characters["validation"] / count[domain.name]["validation"]
            for domain in corpus.domains
        },
    )


def load_tokens(folder: Path, domain: str, split: str) -> Integer[np.ndarray, " n"]:
    """Return the token ids of a split, memory-mapped."""
    return np.load(folder / f"{domain}.{split}.npy", mmap_mode="r")


def load_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """Return the run's tokenizer."""
    return PreTrainedTokenizerFast.from_pretrained(folder / "tokenizer")


def _train_bpe(corpus: Corpus, texts: Path, vocabulary: int) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_training_texts(corpus, texts), trainer)
    return tokenizer


def _training_texts(corpus: Corpus, texts: Path) -> Iterator[str]:
    for domain in corpus.domains:
        left = domain.weight * TRAINING_CHARACTERS
        for document in read_split(texts, domain.name, "train"):
            yield document.text
            left -= len(document.text)
            if left <= 0:
                break


def _encode(folder: Path, texts: Path, backend: Tokenizer, domain: Domain, split: str) -> int:
    dtype = np.uint16 if backend.get_vocab_size() <= 2**16 else np.uint32
    end = backend.token_to_id(END)
    raw = folder / f"{domain.name}.{split}.raw"
    count = 0
    with raw.open("wb") as file:
        documents = read_split(texts, domain.name, split)
        while chunk := [each.text for each in islice(documents, ENCODE_AT_ONCE)]:
            for encoding in backend.encode_batch_fast(chunk, add_special_tokens=False):
                ids = np.asarray([*encoding.ids, end], dtype=dtype)
                count += ids.size
                file.write(ids.tobytes())
    array = np.lib.format.open_memmap(
        folder / f"{domain.name}.{split}.npy", mode="w+", dtype=dtype, shape=(count,)
    )
    array[:] = np.memmap(raw, dtype=dtype, mode="r", shape=(count,))
    array.flush()
    raw.unlink()
    return count
