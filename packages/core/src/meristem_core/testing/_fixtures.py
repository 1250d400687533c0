"""Fixtures: array backends, and the folder of real data. Session-wide, so they mix with @given."""

import importlib.util
import os
from pathlib import Path
from types import ModuleType

import array_api_compat.numpy
import array_api_strict
import pytest

BACKENDS = ("numpy", "strict", "torch")


@pytest.fixture(scope="session", params=BACKENDS)
def xp(request: pytest.FixtureRequest) -> ModuleType:
    """Return one array namespace after the other: NumPy, array-api-strict, torch.

    Torch is skipped where it is not installed.
    """
    if request.param == "numpy":
        return array_api_compat.numpy
    if request.param == "strict":
        return array_api_strict
    if importlib.util.find_spec("torch") is None:
        pytest.skip("needs torch; install meristem-core[torch]")
    from meristem_core.testing import _torch  # noqa: PLC0415 imports torch

    return _torch.namespace()


@pytest.fixture(scope="session")
def data_dir(pytestconfig: pytest.Config) -> Path:
    """Return the folder of real data: MERISTEM_DATA, else `../shared/data` beside the checkout.

    The test is skipped where neither is there.

    Raises
    ------
    ValueError
        If MERISTEM_DATA is set and no folder.
    """
    found = real_data(pytestconfig.rootpath)
    if found is None:
        pytest.skip("needs real data; name its folder in MERISTEM_DATA")
    return found


def real_data(root: Path) -> Path | None:
    """Return the folder of real data for the checkout at `root`, None if it is absent."""
    named = os.environ.get("MERISTEM_DATA")
    if named and not Path(named).is_dir():
        raise ValueError(f"MERISTEM_DATA ({named}) is not a folder; correct or unset it")
    folder = Path(named) if named else root.parent / "shared" / "data"
    return folder if folder.is_dir() else None
