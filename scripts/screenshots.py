#!/usr/bin/env python3
"""Takes a picture of every view of the page, light, dark and as a phone shows it.

    scripts/screenshots.py FOLDER [--only TEXT]

Against a real process on a data folder of its own, with the portraits of tests/photos in it. Needs Chromium and its
driver (Debian: chromium, chromium-driver) and what the tests need (scripts/setup test).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PHOTOS = ROOT / "tests" / "photos"
sys.path.insert(0, str(ROOT / "tests"))

LOOKS = {"light": ("light", 1280, 900), "dark": ("dark", 1280, 900), "phone": ("light", 390, 844)}
VIEWS = ("Live", "People", "Unknowns", "Lists", "Cameras", "Access", "Audit", "Box")


def prepared(service: Any, admin: str) -> dict[str, str]:
    """Fill the box as a small office would have it; return ids by name."""
    headers = {"Authorization": f"Bearer {admin}"}

    def ask(path: str, **body: Any) -> Any:
        answer = service.session.post(f"{service.url}{path}", json=body, headers=headers, timeout=60)
        answer.raise_for_status()
        return answer.json()

    def post(path: str, photo: str, **texts: str) -> Any:
        files = {"image": (photo, (PHOTOS / photo).read_bytes())}
        answer = service.session.post(f"{service.url}{path}", data=texts, files=files, headers=headers, timeout=60)
        answer.raise_for_status()
        return answer.json()

    staff = ask("/person/list/create", name="Staff")["list_id"]
    ask("/person/list/create", name="Visitors")
    group = ask(
        "/source/group/create", name="Entrance", person_list_search=[{"id": staff, "on_found": "edge/door/open"}]
    )["group_id"]
    door = ask(
        "/source/create", name="Front door", group_id=group, new_person_threshold=0.8, person_list_search=[staff]
    )["source_id"]
    ask("/source/create", name="Reception")
    ask("/token/create", name="camera at the front door", scope=["enrol"], expires="never", source_id=door)
    ask("/token/create", name="visitor terminal", scope=["recognize", "read"], expires="90")
    for photo, name in (("obama-1.jpg", "Barack Obama"), ("biden-1.jpg", "Joe Biden")):
        person = post("/person/create", photo, list_id=staff, fields=name)["persons"][0]
    for photo in ("obama-2.jpg", "collins-1.jpg", "obama-3.jpg", "biden-1.jpg"):
        post("/action", photo, person_list_search=staff, source_id=door)
    return {"staff": staff, "person": person["person_id"]}


def main() -> int:
    """Take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", default="", help="pictures whose name contains this")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    from browser import Browser
    from real_process import Service

    with tempfile.TemporaryDirectory() as temporary:
        service = Service(Path(temporary) / "data").start()
        browser = Browser(Path(temporary))
        try:
            admin = service.token("admin")
            ids = prepared(service, admin)
            browser.driver.get(service.url)
            browser.find("E-mail")
            shoot(browser, options, "sign-in")
            browser.press("Use a token instead")
            browser.fill("Token", admin)
            browser.press("Sign in with the token")
            for view in VIEWS:
                browser.go(view)
                shoot(browser, options, view.lower())
            browser.go("Live")
            browser.row_press("Unknown", "Why?")
            shoot(browser, options, "why")
            browser.press("Close")
            browser.driver.get(f"{service.url}/#/person/{ids['staff']}/{ids['person']}")
            browser.settled()
            shoot(browser, options, "person")
            browser.driver.get(f"{service.url}/#/enrol")
            browser.find("Choose a photo").send_keys(str(PHOTOS / "obama-4.jpg"))
            browser.settled()
            shoot(browser, options, "enrol")
            browser.go("Cameras")
            browser.press("New camera")
            shoot(browser, options, "camera-dialog")
        finally:
            browser.quit()
            service.end()
    return 0


def shoot(browser: Any, options: argparse.Namespace, name: str) -> None:
    """Take the view's picture in every look."""
    for look, (scheme, width, height) in LOOKS.items():
        file = f"{name}-{look}.png"
        if options.only in file:
            browser.emulate(scheme, width, height)
            browser.driver.execute_script("return new Promise((done) => setTimeout(done, 300))")
            browser.screenshot(options.folder / file)
    browser.emulate()


if __name__ == "__main__":
    sys.exit(main())
