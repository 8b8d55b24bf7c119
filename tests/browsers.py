"""A browser without a window, for tests of pages."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.common.exceptions import WebDriverException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

__all__ = ["SECONDS", "chromium", "comes_to_show", "command", "run", "shoot", "text_of"]

SCREENSHOTS = "UPSHOT_TEST_SCREENSHOTS"
"""The variable that names a folder in which pictures are kept."""

SECONDS = 60
"""How long a page may take: a machine that runs other tests is slow."""


@contextmanager
def chromium(profile: Path) -> Generator[webdriver.Chrome]:
    """Debian's Chromium, without a window, that speaks to nobody but the page's own server."""
    options = webdriver.ChromeOptions()
    for argument in (
        "--headless=new",
        "--no-sandbox",  # which root may not have
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--hide-scrollbars",
        f"--user-data-dir={profile}",
        "--window-size=1200,1000",
    ):
        options.add_argument(argument)
    options.binary_location = "/usr/bin/chromium"
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service("/usr/bin/chromedriver"))
    try:
        driver.implicitly_wait(10)
        driver.set_page_load_timeout(SECONDS)
        yield driver
    finally:
        driver.quit()


def run(browser: webdriver.Chrome, script: str, *arguments: object) -> Any:
    """Run JavaScript in the page, and return what it returns."""
    window: Any = browser  # selenium has hints of some of its arguments only
    return window.execute_script(script, *arguments)


def command(browser: webdriver.Chrome, name: str, **arguments: object) -> Any:
    """Send a command of the browser's own protocol."""
    window: Any = browser
    return window.execute_cdp_cmd(name, arguments)


def shoot(browser: webdriver.Chrome, name: str, folder: Path, *, width: int = 1200) -> Path:
    """Take a picture of the page, of its whole height."""
    window: Any = browser
    height: int = run(browser, "return document.documentElement.scrollHeight")
    window.set_window_size(width, max(700, height + 150))
    path = Path(os.environ.get(SCREENSHOTS, folder)) / f"{name}.png"
    assert window.save_screenshot(str(path))
    return path


def text_of(browser: webdriver.Chrome, selector: str) -> list[str]:
    """Return what is to be read in each element that a CSS selector finds."""
    return [each.text for each in browser.find_elements(By.CSS_SELECTOR, selector)]


def comes_to_show(browser: webdriver.Chrome, selector: str, *texts: str) -> None:
    """Wait until these are to be read where a CSS selector says.

    The driver may be back before the next page is there, and look at the one before as it goes.
    """
    waiting = WebDriverWait(browser, SECONDS, ignored_exceptions=[WebDriverException])
    waiting.until(lambda found: text_of(found, selector) == list(texts))
