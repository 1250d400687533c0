from meristem_core.testing import data_dir, open_page, pytest_configure, xp  # noqa: F401
