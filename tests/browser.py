"""A real browser for a test: Debian's Chromium, driven by Playwright."""

import contextlib
import shutil
import unittest

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--no-sandbox",  # Tests run as root, too.
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@contextlib.contextmanager
def browser():
    """A browser, closed at the end.

    Raises:
      unittest.SkipTest: there is none here, or nothing to drive it.
    """
    binary = next(filter(None, map(shutil.which, NAMES)), None)
    if not binary:
        raise unittest.SkipTest(
            f"no browser: none of {', '.join(NAMES)} is on the PATH (Debian: "
            "apt-get install chromium)"
        )
    try:
        from playwright.sync_api import sync_playwright
    except ModuleNotFoundError:
        raise unittest.SkipTest(
            "nothing drives a browser (pip install playwright)"
        ) from None
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=binary, args=list(FLAGS)
        )
        try:
            yield chromium
        finally:
            chromium.close()
