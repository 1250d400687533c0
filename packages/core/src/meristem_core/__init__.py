"""What the Meristem packages share."""

from meristem_core._checkpoints import Checkpoint, latest_checkpoint, save_checkpoint
from meristem_core._files import sha256_of, write_atomic
from meristem_core._journal import Journal
from meristem_core._json import digest, read_json, write_json
from meristem_core._runs import RunDir, open_run

__all__ = [
    "Checkpoint",
    "Journal",
    "RunDir",
    "digest",
    "latest_checkpoint",
    "open_run",
    "read_json",
    "save_checkpoint",
    "sha256_of",
    "write_atomic",
    "write_json",
]
