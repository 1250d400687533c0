"""The pytest hook: markers, warnings as errors, one thread, and the Hypothesis profile."""

import os
import sys

import pytest
from hypothesis import HealthCheck, settings
from threadpoolctl import threadpool_limits  # pyright: ignore[reportMissingTypeStubs] it has no types

MARKERS = (
    "slow: minutes",
    "gpu: needs CUDA",
    "network: downloads",
    "data: needs the real data in MERISTEM_DATA or ../shared/data",
    "paper: pins a published number",
    "browser: starts a real Chromium",
    "vllm: starts the real engine",
)
PROFILES = ("dev", "gate", "ci", "release")
EXAMPLES = 2000  # of the profile release, unless HYPOTHESIS_MAX_EXAMPLES says otherwise
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def pytest_configure(config: pytest.Config) -> None:
    """Set pytest and Hypothesis up; pytest calls it for each `conftest.py` that imports it.

    Registers the markers, makes warnings errors, leaves one thread to each test process, and loads
    the profile: the one named by HYPOTHESIS_PROFILE, else `ci` where CI is set, else `dev`.

    Parameters
    ----------
    config
        Given by pytest. Warning filters of its own configuration win over `error`.

    Raises
    ------
    ValueError
        If HYPOTHESIS_PROFILE or HYPOTHESIS_MAX_EXAMPLES is unknown or out of range.
    """
    for marker in MARKERS:
        config.addinivalue_line("markers", marker)
    filters = config.getini("filterwarnings")
    if "error" not in filters:
        filters.insert(0, "error")  # pytest lets later ones win
    _cap_threads()
    _register_profiles()
    if config.getoption("--hypothesis-profile", default=None) is None:
        settings.load_profile(_profile())


def _cap_threads() -> None:
    """Leave one thread to libraries that are loaded, will be loaded, or run in child processes."""
    for variable in THREAD_VARIABLES:
        os.environ[variable] = "1"
    threadpool_limits(limits=1)
    if "torch" in sys.modules:
        from meristem_core.testing import _torch  # noqa: PLC0415 imports torch

        _torch.cap_threads()


def _register_profiles() -> None:
    """Register the four profiles, each free of what CI makes Hypothesis's default."""
    plain = settings.get_profile("default")
    examples = _examples()
    patient = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
    settings.register_profile("dev", plain, max_examples=50, deadline=None)
    fixed = {"derandomize": True, "database": None, "print_blob": True, **patient}
    settings.register_profile("gate", plain, max_examples=50, **fixed)
    settings.register_profile("ci", plain, max_examples=200, **fixed)
    settings.register_profile("release", plain, max_examples=examples, **patient)


def _profile() -> str:
    name = os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") else "dev")
    if name not in PROFILES:
        raise ValueError(f"HYPOTHESIS_PROFILE ({name}) is unknown; choose {', '.join(PROFILES)}")
    return name


def _examples() -> int:
    text = os.environ.get("HYPOTHESIS_MAX_EXAMPLES") or str(EXAMPLES)
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(
            f"HYPOTHESIS_MAX_EXAMPLES ({text}) must be a whole number of at least 1; unset it "
            f"for {EXAMPLES}"
        )
    return int(text)
