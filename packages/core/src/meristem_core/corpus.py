"""Texts from files, folders and globs, one document at a time.

- a `.jsonl` file holds one document per line in its field `text`; any other file is one document
- `.gz` and `.zst` files are read through; a truncated one is an error, never a shorter text
- an id is the path below the source, plus `:<line>` within a `.jsonl` file: the same on every
  machine, so a split by the hash of the id never moves
- nothing is dropped silently: binary files of a folder are counted in a warning
"""

from meristem_core._documents import Document, read_documents
from meristem_core._splits import assign_splits, deduplicate

__all__ = ["Document", "assign_splits", "deduplicate", "read_documents"]
