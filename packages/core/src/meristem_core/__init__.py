"""What the Meristem packages share."""

from meristem_core._files import sha256_of, write_atomic
from meristem_core._journal import Journal
from meristem_core._json import digest, read_json, write_json
from meristem_core._runs import RunDir, open_run

__all__ = [
    "Journal",
    "RunDir",
    "digest",
    "open_run",
    "read_json",
    "sha256_of",
    "write_atomic",
    "write_json",
]
