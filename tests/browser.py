"""A browser as an operator has one: Chromium, headless, driven through its own driver, against the real process."""

from __future__ import annotations

import base64
import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from axe_core_python.base import AXE_FILE_PATH
from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException, WebDriverException
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service as Driver
from selenium.webdriver.remote.webelement import WebElement

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
IS_REQUIRED = os.environ.get("EDGE_TEST_BROWSER") == "required"
MISSING = None if (CHROMIUM and DRIVER) or IS_REQUIRED else "no browser: apt-get install chromium chromium-driver"

PATIENCE_SECONDS = 30
"""A bound for a machine that does other things too, not a promise."""

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-sync",
    "--no-first-run",
    "--no-pings",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
    "--force-prefers-reduced-motion",
)

CONTROLS = """
const dialogs = document.querySelectorAll("dialog[open]");
const place = dialogs.length ? dialogs[dialogs.length - 1] : document;
const named = (one, name) =>
  [one.textContent, one.getAttribute("aria-label"), ...[...(one.labels ?? [])].map((label) => label.textContent)]
    .some((text) => text?.trim().startsWith(name));
return [...place.querySelectorAll("button, a, input, select, textarea, summary")]
  .filter((one) => (one.type === "file" || one.checkVisibility()) && named(one, arguments[0]));
"""
"""Controls that can be seen and may have that accessible name: only the driver's own word on it counts, but is slow."""

BUTTONS_OF_ROW = """
const rows = [...document.querySelectorAll("tbody tr, li")].filter((one) => one.innerText.includes(arguments[0]));
return rows.flatMap((one) => [...one.querySelectorAll("button")]);
"""

T = TypeVar("T")


class Browser:
    """A window of its own profile, and what came of it: every request and every complaint."""

    def __init__(self, folder: Path) -> None:
        options = Options()
        options.binary_location = str(CHROMIUM)
        for flag in (*FLAGS, f"--user-data-dir={folder / 'profile'}", "--window-size=1280,900"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.driver = webdriver.Chrome(options, Driver(str(DRIVER), env={**os.environ, "TZ": "UTC"}))
        self.requested: list[str] = []
        self.complaints: list[str] = []

    def quit(self) -> None:
        self.driver.quit()

    # --- what it did ---

    def collect(self) -> None:
        """Note the requests and complaints since the last time."""
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                self.requested.append(message["params"]["request"]["url"])
        self.complaints += [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] != "INFO"]

    def complaints_of(self, status: int) -> None:
        """Expect the browser's own note of one refusal, and forget it."""
        note = f"status of {status}"

        def noted() -> bool:
            self.collect()
            return any(note in one for one in self.complaints)

        self.until(noted, f"the note of a {status}")
        self.complaints = [one for one in self.complaints if note not in one]

    # --- how it looks ---

    def emulate(self, scheme: str = "light", width: int = 1280, height: int = 900) -> None:
        """Show the page in `light` or `dark`, in a window of that size; under 600 pixels, as a phone does."""
        is_phone = width < 600
        self.driver.execute_cdp_cmd(
            "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        )
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": is_phone}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def screenshot(self, path: Path, *, full: bool = False) -> None:
        shot = self.driver.execute_cdp_cmd("Page.captureScreenshot", {"format": "png", "captureBeyondViewport": full})
        path.write_bytes(base64.b64decode(shot["data"]))

    def violations(self) -> list[str]:
        """Return what axe-core finds wrong with what is shown."""
        if not self.driver.execute_script("return 'axe' in window"):
            self.driver.execute_script(AXE_FILE_PATH.read_text(encoding="utf-8"))
        found = self.driver.execute_async_script(
            "axe.run(document, {resultTypes: ['violations']}).then((found) => arguments[0](found.violations))"
        )
        return [f"{one['id']}: {one['nodes'][0]['html'][:200]}" for one in found]

    # --- finding and doing ---

    def until(self, look: Callable[[], T | None], what: str) -> T:
        """Return what is looked for as soon as it is there."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            try:
                found = look()
            except (StaleElementReferenceException, WebDriverException):
                found = None
            if found:
                return found
            time.sleep(0.05)
        raise AssertionError(f"waited for {what}; there is: {self.text()[:1500]}")

    def text(self) -> str:
        return str(self.driver.execute_script("return document.body.innerText"))

    def sees(self, text: str) -> None:
        self.until(lambda: text in self.text(), f"the text {text!r}")

    def sees_no(self, text: str) -> None:
        self.until(lambda: text not in self.text(), f"the end of {text!r}")

    def find(self, name: str, role: str | None = None) -> WebElement:
        """Return the control of that accessible name; the newest dialog's where one is open."""
        return self.until(lambda: self._named(name, role), f"a control named {name!r}")

    def _named(self, name: str, role: str | None) -> WebElement | None:
        for element in self.driver.execute_script(CONTROLS, name):
            if element.accessible_name == name and role in (None, element.aria_role):
                return element
        return None

    def press(self, name: str) -> None:
        self.until(lambda: self._pressed(name), f"a button named {name!r} that can be pressed")

    def _pressed(self, name: str) -> bool:
        element = self._named(name, None)
        if element is None:
            return False
        self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
        element.click()
        return True

    def fill(self, name: str, text: str) -> None:
        element = self.find(name)
        element.clear()
        element.send_keys(text)

    def choose(self, name: str, option: str) -> None:
        element = self.find(name)
        for one in element.find_elements("css selector", "option"):
            if one.text == option:
                one.click()
                return
        raise AssertionError(f"{name!r} has no {option!r}")

    def row_press(self, row: str, name: str) -> None:
        """Press the button of that name in the table's row (or card) that holds the text."""

        def look() -> bool:
            for button in self.driver.execute_script(BUTTONS_OF_ROW, row):
                if button.accessible_name == name:
                    self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", button)
                    button.click()
                    return True
            return False

        self.until(look, f"{name!r} beside {row!r}")

    def go(self, view: str) -> None:
        """Go to a view by its link, and wait until it is there and has loaded."""
        self.press(view)
        self.settled()

    def settled(self) -> None:
        quiet = "return !document.querySelector('[aria-busy], .loading') && document.readyState == 'complete'"
        self.until(lambda: self.driver.execute_script(quiet), "the page to have loaded")
