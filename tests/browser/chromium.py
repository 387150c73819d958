"""Where Chromium is on this machine."""

import shutil

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")


def chromium_path() -> str | None:
    """Return the program, None if there is none."""
    return next(filter(None, map(shutil.which, NAMES)), None)
