"""What the Meristem packages share."""

from meristem_core._files import sha256_of, write_atomic
from meristem_core._json import digest, read_json, write_json

__all__ = ["digest", "read_json", "sha256_of", "write_atomic", "write_json"]
