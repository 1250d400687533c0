"""A real Chromium for tests of pages; needs the extra `browser` and an installed Chromium."""

import os
import shutil
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Page

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
QUIET = ("--no-sandbox", "--disable-background-networking", "--disable-component-update")
OpenPage = Callable[..., "AbstractContextManager[Page]"]


@pytest.fixture(scope="session")
def open_page() -> OpenPage:
    """Return a context manager that opens an HTML file: `open_page(path, width=1280, dark=False)`.

    It yields Playwright's `Page`. On leaving, the page must have written no error or warning to its
    console, thrown nothing, and asked for nothing but the file itself. The test is skipped where
    there is no Chromium; with MERISTEM_CI set it fails there.
    """
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        (pytest.fail if os.environ.get("MERISTEM_CI") else pytest.skip)(
            f"needs one of {', '.join(PROGRAMS)}; on Debian: apt-get install chromium"
        )
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 an extra

    @contextmanager
    def opened(
        path: Path, *, width: int = 1280, height: int = 900, dark: bool = False
    ) -> "Generator[Page, None, None]":
        with sync_playwright() as playwright:
            chromium = playwright.chromium.launch(executable_path=program, args=list(QUIET))
            page = chromium.new_page(
                viewport={"width": width, "height": height},
                color_scheme="dark" if dark else "light",
            )
            complaints = _listen(page, path.resolve().as_uri())
            page.goto(path.resolve().as_uri())
            yield page
            chromium.close()
        assert not complaints, f"{path.name}: {'; '.join(complaints)}"

    return opened


def _listen(page: "Page", address: str) -> list[str]:
    """Return a list that fills with what the page does wrong."""
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(f"threw {error}"))
    page.on(
        "request",
        lambda request: (
            None
            if request.url.partition("#")[0] == address
            else complaints.append(f"asked for {request.url}")
        ),
    )
    page.on(
        "console",
        lambda message: (
            complaints.append(f"console: {message.text}")
            if message.type in ("error", "warning")
            else None
        ),
    )
    return complaints
