"""Stage 1: text becomes domains, split by document into train, validation and probe.

- a domain is one `--corpus` source, or `english` and `python` of the running interpreter
- exact duplicates are dropped; of every 20 documents 18 train, 1 validates, 1 probes
- a source of fewer than 20 documents is cut at blank lines into sections, which then count as
  documents
- paragraphs of the validation and probe splits that also stand in a training document are taken
  out, so that held-out text is really unseen; all that is dropped is counted in the result
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from hashlib import blake2b
from itertools import chain, islice
from pathlib import Path

from meristem.grow._python_text import python_text
from meristem_core import stream, write_atomic
from meristem_core.command import UsageError
from meristem_core.corpus import Document, read_documents

SPLITS = ("train", "validation", "probe")
BLOCK = 20  # documents, of which one validates and one probes
SECTION = 2000  # characters
PARAGRAPH = 80  # characters; shorter paragraphs are headings, formulas, imports


@dataclass(frozen=True, slots=True, kw_only=True)
class Domain:
    """What one source gave, and what was left out."""

    name: str
    weight: float  # share of the training tokens; the weights of a corpus sum to 1
    documents: dict[str, int]  # per split
    characters: dict[str, int]  # per split
    duplicates: int  # documents
    leaks: int  # held-out paragraphs that a training document contains
    sectioned: bool  # few documents, cut into sections


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """The domains; their texts lie beside as `<domain>.<split>.jsonl`."""

    domains: list[Domain]


def build_corpus(
    folder: Path, *, sources: tuple[str, ...], encoding: str, seed: int, max_characters: int
) -> Corpus:
    """Read the sources into `folder` and return what they hold.

    Parameters
    ----------
    folder
        Where `<domain>.<split>.jsonl` are written.
    sources
        `PATH[=weight]` or `hub:NAME[=weight]`; empty: the running Python's own text.
    encoding
        Of the files.
    seed
        Chooses which documents are held out.
    max_characters
        What is read of each source at most.

    Raises
    ------
    UsageError
        If a source is unreadable, empty or too small, or two sources have one name.
    """
    places = [parse_source(source) for source in sources]
    total = sum(weight for _, weight in places)
    texts = _open_sources([place for place, _ in places], encoding)
    weights = [weight / total for _, weight in places] or [1 / len(texts)] * len(texts)
    domains = [
        _write_domain(folder, name, documents, weight=weight, seed=seed, limit=max_characters)
        for (name, documents), weight in zip(texts.items(), weights, strict=True)
    ]
    return Corpus(domains=_without_leaks(folder, domains))


def read_split(folder: Path, domain: str, split: str) -> Iterator[Document]:
    """Yield the documents of one split of one domain."""
    with _file(folder, domain, split).open(encoding="utf-8") as lines:
        for line in lines:
            yield Document(**json.loads(line))


def parse_source(source: str) -> tuple[str, float]:
    """Return the place and the weight of `PATH[=weight]`.

    Examples
    --------
    >>> parse_source("books/*.txt=0.5"), parse_source("a=b.txt")
    (('books/*.txt', 0.5), ('a=b.txt', 1.0))
    """
    place, _, weight = source.rpartition("=")
    try:
        value = float(weight)
    except ValueError:
        return source, 1.0
    if not 0 < value < float("inf"):
        raise UsageError(f"--corpus {source}: the weight ({weight}) must be positive and finite")
    return place, value


def _open_sources(places: list[str], encoding: str) -> dict[str, Iterable[Document]]:
    if not places:
        return dict(python_text())
    names = [_name(place) for place in places]
    for name, count in Counter(names).items():
        if count > 1:
            raise UsageError(f"--corpus: {count} sources would be named {name}; rename one")
    return {name: _reading(place, encoding) for name, place in zip(names, places, strict=True)}


def _name(place: str) -> str:
    stem = Path(place.removeprefix("hub:")).name.split(".")[0]
    return "".join(c if c.isalnum() else "-" for c in stem).strip("-") or "corpus"


def _reading(place: str, encoding: str) -> Iterator[Document]:
    try:
        if place.startswith("hub:"):
            yield from _read_hub(place.removeprefix("hub:"))
        else:
            yield from read_documents(place, encoding=encoding)
    except (OSError, ValueError, LookupError, ImportError) as error:
        raise UsageError(f"--corpus {place}: {error}") from error


def _read_hub(name: str) -> Iterator[Document]:
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise ImportError("needs datasets; install it with: pip install 'meristem[hub]'") from error
    for index, row in enumerate(load_dataset(name, split="train", streaming=True)):
        if "text" not in row:
            raise ValueError(f"record {index} has the fields {sorted(row)} but not 'text'")
        yield Document(id=str(index), text=row["text"])


def _write_domain(
    folder: Path, name: str, documents: Iterable[Document], *, weight: float, seed: int, limit: int
) -> Domain:
    sectioned, documents = _enough_documents(iter(documents))
    count: Counter[str] = Counter()
    size: Counter[str] = Counter()
    seen: set[bytes] = set()
    duplicates = 0
    with ExitStack() as stack:
        files = {
            split: stack.enter_context(_file(folder, name, split).open("w", encoding="utf-8"))
            for split in SPLITS
        }
        for document in documents:
            key = _hash(document.text)
            if key in seen:
                duplicates += 1
                continue
            split = _split_of(len(seen), seed)
            seen.add(key)
            count[split] += 1
            size[split] += len(document.text)
            files[split].write(_line(document))
            if size.total() >= limit:
                break
    if len(seen) < BLOCK:
        raise UsageError(
            f"--corpus {name}: {len(seen)} different documents or sections of {SECTION} "
            f"characters cannot be split; at least {BLOCK} are needed, so give more text"
        )
    return Domain(
        name=name,
        weight=weight,
        documents={split: count[split] for split in SPLITS},
        characters={split: size[split] for split in SPLITS},
        duplicates=duplicates,
        leaks=0,
        sectioned=sectioned,
    )


def _split_of(index: int, seed: int) -> str:
    block, place = divmod(index, BLOCK)
    drawn = stream(seed, "split", block).permutation(BLOCK)[place]
    return {0: "validation", 1: "probe"}.get(int(drawn), "train")


def _enough_documents(documents: Iterator[Document]) -> tuple[bool, Iterator[Document]]:
    first = list(islice(documents, BLOCK))
    if len(first) == BLOCK:
        return False, chain(first, documents)
    return True, chain.from_iterable(map(_sections, first))


def _sections(document: Document) -> Iterator[Document]:
    part: list[str] = []
    number = 0
    for paragraph in document.text.split("\n\n"):
        part.append(paragraph)
        if sum(map(len, part)) >= SECTION:
            yield Document(id=f"{document.id}#{number}", text="\n\n".join(part))
            part, number = [], number + 1
    if part:
        yield Document(id=f"{document.id}#{number}", text="\n\n".join(part))


def _without_leaks(folder: Path, domains: list[Domain]) -> list[Domain]:
    held_out = [(domain, split) for domain in domains for split in SPLITS[1:]]
    suspects = {
        key
        for domain, split in held_out
        for document in read_split(folder, domain.name, split)
        for key in _paragraph_keys(document.text)
    }
    leaked = {
        key
        for domain in domains
        for document in read_split(folder, domain.name, "train")
        for key in _paragraph_keys(document.text)
        if key in suspects
    }
    return [_rewrite_held_out(folder, domain, leaked) for domain in domains]


def _rewrite_held_out(folder: Path, domain: Domain, leaked: set[bytes]) -> Domain:
    leaks, characters = 0, dict(domain.characters)
    for split in SPLITS[1:]:
        kept: list[Document] = []
        for document in read_split(folder, domain.name, split):
            paragraphs = document.text.split("\n\n")
            clean = [each for each in paragraphs if not _is_leak(each, leaked)]
            leaks += len(paragraphs) - len(clean)
            kept.append(Document(id=document.id, text="\n\n".join(clean)))
        characters[split] = sum(len(document.text) for document in kept)
        write_atomic(_file(folder, domain.name, split), "".join(map(_line, kept)))
    return replace(domain, leaks=leaks, characters=characters)


def _paragraph_keys(text: str) -> Iterator[bytes]:
    return (_hash(each) for each in text.split("\n\n") if len(each) >= PARAGRAPH)


def _is_leak(paragraph: str, leaked: set[bytes]) -> bool:
    return len(paragraph) >= PARAGRAPH and _hash(paragraph) in leaked


def _hash(text: str) -> bytes:
    return blake2b(" ".join(text.split()).encode(), digest_size=8).digest()


def _line(document: Document) -> str:
    return json.dumps({"id": document.id, "text": document.text}, ensure_ascii=False) + "\n"


def _file(folder: Path, domain: str, split: str) -> Path:
    return folder / f"{domain}.{split}.jsonl"
