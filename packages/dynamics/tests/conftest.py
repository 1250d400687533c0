from meristem_core.testing import data_dir, pytest_configure, xp  # noqa: F401
