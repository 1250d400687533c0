"""One file for a certificate: a NumPy archive of arrays and a JSON header."""

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

FORMAT = "meristem shadowing certificate 1"


def packed(header: Mapping[str, Any], arrays: Mapping[str, Any]) -> bytes:
    """Return the bytes of a file that holds `header` and `arrays`."""
    text = json.dumps({"format": FORMAT, **header}, allow_nan=False)
    file = io.BytesIO()
    np.savez(file, header=np.frombuffer(text.encode(), dtype=np.uint8), **arrays)
    return file.getvalue()


def unpacked(path: Path | str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return header and arrays of a file that `packed` made.

    Raises
    ------
    ValueError
        If the file is something else.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        header = json.loads(arrays.pop("header").tobytes())
        if header.pop("format") != FORMAT:
            raise KeyError("format")
    except (KeyError, ValueError, AttributeError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is no shadowing certificate ({error}); make one with save") from (
            error
        )
    return header, arrays
