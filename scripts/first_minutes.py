#!/usr/bin/env python3
"""Does what a newcomer does in the first minutes, and says how long each step took.

    scripts/first_minutes.py [--from URL] [--port 8080]

A clone in a folder of its own, `scripts/run` in it as the README says (a fresh virtual environment, hnswlib compiled),
the page in a browser, signed in with the first token, two people added by a photo each, then the line that
`scripts/run` printed, with a third photo, until its card is under Live. How fast a person types is not in it.

Needs Chromium and its driver (Debian: chromium, chromium-driver), curl, git, and what the tests need (scripts/setup
test).
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from browser import MISSING, Browser  # noqa: E402  (of tests/)

NEWCOMERS = {"Barack": "obama-1.jpg", "Susan": "collins-1.jpg"}
THIRD = "obama-3.jpg"
EXAMPLE = re.compile(r"  curl .*?\n\n", re.S)
END_SECONDS = 15


@contextmanager
def step(name: str) -> Iterator[None]:
    """Print how long it took."""
    started = time.monotonic()
    yield
    print(f"{time.monotonic() - started:6.1f} s  {name}", flush=True)


def told_until_example(service: subprocess.Popen[str]) -> str:
    """Return what was printed, up to the line to be pasted."""
    assert service.stdout is not None
    told = ""
    for line in service.stdout:
        told += line
        if EXAMPLE.search(told):
            return told
    raise SystemExit(f"scripts/run ended: {told}")


def sign_in(browser: Browser, token: str) -> None:
    """Sign in with a token."""
    browser.driver.find_element("css selector", "summary").click()
    browser.fill("Token", token)
    browser.press("Sign in with the token")
    browser.find("Sign out")
    browser.settled()


def enrol(browser: Browser, name: str, photo: Path) -> None:
    """Add somebody by a photo, as the page has it."""
    browser.go("People")
    browser.press("Add somebody")
    browser.find("Choose a photo").send_keys(str(photo))
    browser.sees("A good photo.")
    browser.fill("Name", name)
    browser.press("Save the person")
    browser.sees("Recognised by 1 photo")


def walk(folder: Path, source: str, port: int) -> None:
    """Do all of it."""
    clone = folder / "edge"
    mine = {name: text for name, text in os.environ.items() if not name.startswith("EDGE_")}
    mine["PIP_NO_CACHE_DIR"] = "1"  # a newcomer has none
    with step("clone"):
        subprocess.run(["git", "clone", "--quiet", source, str(clone)], check=True)
    command = ["scripts/run", "--set", f"server.port={port}"]
    service: subprocess.Popen[str] | None = None
    try:
        with step("scripts/run, until it answers"):
            service = subprocess.Popen(command, cwd=clone, env=mine, stdout=subprocess.PIPE, text=True)
            told = told_until_example(service)
        example = EXAMPLE.search(told)
        url = re.search(r"http://[^/\s]+/", told)
        assert example is not None and url is not None, "as it printed them"
        photos, browser = clone / "tests" / "photos", Browser(folder)
        try:
            with step("the page"):
                browser.driver.get(url[0])
                browser.find("Sign in")
            with step("signed in with the first token"):
                sign_in(browser, (clone / "data" / "admin.token").read_text().strip())
            for name, photo in NEWCOMERS.items():
                with step(f"{name} is added by a photo"):
                    enrol(browser, name, photos / photo)
            browser.go("Live")
            with step("the printed line with a third photo, until it is under Live"):
                line = example[0].replace("obama-1.jpg", THIRD)
                subprocess.run(line, shell=True, check=True, cwd=clone, capture_output=True)  # noqa: S602 (as pasted)
                browser.find("Not Barack")
        finally:
            browser.quit()
    finally:
        if service is not None:
            service.terminate()
            service.wait(END_SECONDS)


def main() -> int:
    """Walk once."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--from", dest="source", default=str(ROOT), help="what is cloned (default: this repository)")
    parser.add_argument("--port", type=int, default=8080)
    options = parser.parse_args()
    if MISSING is not None:
        sys.exit(str(MISSING))
    with tempfile.TemporaryDirectory() as folder, step("in all"):
        walk(Path(folder), options.source, options.port)
    return 0


if __name__ == "__main__":
    sys.exit(main())
