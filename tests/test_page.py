"""The page, as an operator uses it: Chromium against the real process, every task done by hand and eye."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from real_process import Service

from edge.web.sessions import COOKIE

browser_module = pytest.importorskip("browser", reason="selenium and axe-core-python are not installed")
Browser = browser_module.Browser

PHOTOS = Path(__file__).parent / "photos"
EMAIL, PASSWORD = "ann@example.org", "correct horse battery"

pytestmark = pytest.mark.skipif(browser_module.MISSING is not None, reason=str(browser_module.MISSING))


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    service = Service(tmp_path_factory.mktemp("page") / "data").start()
    yield service
    service.end()


@pytest.fixture(scope="module")
def admin(box: Service) -> str:
    """A token for everything, with which the user is made too."""
    secret = box.token("admin")
    ask(box, secret, "/user/create", email=EMAIL, password=PASSWORD)
    return secret


@pytest.fixture(scope="module")
def page(box: Service, admin: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The one browser, signed in."""
    browser = Browser(tmp_path_factory.mktemp("browser"))
    browser.emulate()
    browser.driver.get(box.url)
    sign_in(browser)
    yield browser
    browser.quit()


@pytest.fixture(autouse=True)
def nothing_strange(request: pytest.FixtureRequest, box: Service) -> Iterator[None]:
    """No request leaves the origin, and the browser complains of nothing, its policy included, whatever is done."""
    yield
    if "page" in request.fixturenames:
        page = request.getfixturevalue("page")
        page.collect()
        complaints, page.complaints = page.complaints, []
        mine = (f"{box.url}/", "data:", f"blob:{box.url}/", "chrome:", "about:")
        assert page.requested, "the browser tells what it asks for"
        assert [one for one in page.requested if not one.startswith(mine)] == []
        assert complaints == []


def ask(box: Service, token: str, path: str, **body: Any) -> Any:
    headers = {"Authorization": f"Bearer {token}"}
    answer = box.session.post(f"{box.url}{path}", json=body, headers=headers, timeout=60)
    assert answer.ok, answer.text
    return answer.json()


def sign_in(page: Any) -> None:
    page.fill("E-mail", EMAIL)
    page.fill("Password", PASSWORD)
    page.press("Sign in")
    page.find("Sign out")
    page.settled()


# --- the session, without a browser ---


def begin(box: Service) -> requests.Session:
    session = requests.Session()
    answer = session.post(f"{box.url}/session/begin", json={"email": EMAIL, "password": PASSWORD}, timeout=30)
    assert answer.status_code == 200
    session.headers["X-CSRF-Token"] = answer.json()["csrf_token"]
    return session


def test_the_cookie_is_for_this_page_alone(box: Service, admin: str) -> None:
    answer = requests.post(f"{box.url}/session/begin", json={"email": EMAIL, "password": PASSWORD}, timeout=30)
    parts = {part.strip() for part in answer.headers["Set-Cookie"].split(";")}
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= parts
    assert "Secure" not in parts  # it came by http: a browser would drop it


def test_a_request_with_the_cookie_needs_the_csrf_token(box: Service, admin: str) -> None:
    session = begin(box)
    assert session.post(f"{box.url}/person/lists", json={}, timeout=30).status_code == 200
    for wrong in (None, "", "0" * 64):
        session.headers["X-CSRF-Token"] = wrong  # type: ignore[assignment]  # None: not sent
        assert session.post(f"{box.url}/person/lists", json={}, timeout=30).status_code == 403
    assert session.get(f"{box.url}/tokens", timeout=30).status_code == 200  # reading changes nothing


def test_signing_out_ends_the_session_at_once(box: Service, admin: str) -> None:
    session = begin(box)
    cookie = session.cookies[COOKIE]
    assert session.post(f"{box.url}/user/logout", json={}, timeout=30).status_code == 200
    assert COOKIE not in session.cookies
    session.cookies[COOKIE] = cookie
    assert session.post(f"{box.url}/person/lists", json={}, timeout=30).status_code == 401
    assert session.get(f"{box.url}/session", timeout=30).json()["signed_in"] is False


def test_a_session_ends_with_the_token_it_was_begun_with(box: Service, admin: str) -> None:
    made = ask(box, admin, "/token/create", expires="never", scope=["read"])["token"]
    session = requests.Session()
    told = session.post(f"{box.url}/session/begin", json={}, headers={"token": made["id"]}, timeout=30).json()
    assert told["scope"] == ["read"]
    session.headers["X-CSRF-Token"] = told["csrf_token"]
    assert session.post(f"{box.url}/person/lists", json={}, timeout=30).status_code == 200
    assert session.post(f"{box.url}/tokens", json={}, timeout=30).status_code == 403
    ask(box, admin, "/token/delete", token_id=made["token_id"])
    assert session.post(f"{box.url}/person/lists", json={}, timeout=30).status_code == 401


def test_another_sites_page_signs_nobody_in(box: Service, admin: str) -> None:
    body, headers = {"email": EMAIL, "password": PASSWORD}, {"Origin": "http://elsewhere.example"}
    answer = requests.post(f"{box.url}/session/begin", data=body, headers=headers, timeout=30)
    assert answer.status_code == 403 and "Set-Cookie" not in answer.headers


def test_sign_ins_through_a_tls_proxy_are_for_tls_alone_and_wrong_ones_are_paced(tmp_path: Path) -> None:
    settings = ("server.trusted_proxy=127.0.0.1", "server.wrong_tokens_per_minute=3")
    service = Service(tmp_path / "data", *settings).start()
    try:
        begin_at = f"{service.url}/session/begin"
        headers = {"Authorization": f"Bearer {service.token('read')}", "X-Forwarded-Proto": "https"}
        answer = requests.post(begin_at, json={}, headers=headers, timeout=30)
        assert "; Secure" in answer.headers["Set-Cookie"]
        headers["Authorization"] = "Bearer 00000000-0000-4000-8000-000000000000"
        told = [requests.post(begin_at, json={}, headers=headers, timeout=30).status_code for _ in range(4)]
        assert told == [403, 403, 403, 429]
        wrong = {"email": EMAIL, "password": "not the password"}
        told = [requests.post(begin_at, json=wrong, timeout=30).status_code for _ in range(11)]
        assert told == [403] * 10 + [429]
    finally:
        service.end()


def test_the_files_of_the_page_are_locked_down_and_cached(box: Service) -> None:
    whole = requests.get(f"{box.url}/", timeout=30)
    policy = whole.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy and "unsafe" not in policy
    assert whole.headers["X-Content-Type-Options"] == "nosniff"
    assert whole.headers["Referrer-Policy"] == "no-referrer"
    script = requests.get(f"{box.url}/console/app.js", timeout=30)
    assert script.headers["Content-Type"].startswith("text/javascript")
    again = requests.get(script.url, headers={"If-None-Match": script.headers["ETag"]}, timeout=30)
    assert (again.status_code, again.content) == (304, b"")
    assert requests.get(f"{box.url}/console/console.py", timeout=30).status_code == 404
    assert requests.get(f"{box.url}/console/..%2fconsole.py", timeout=30).status_code == 404


# --- in the browser ---


def test_signing_in_and_out_by_keyboard_alone(page: Any, box: Service) -> None:
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    def keys(*pressed: str) -> None:
        ActionChains(page.driver).send_keys(*pressed).perform()

    page.press("Sign out")
    page.sees("You are signed out.")
    keys(EMAIL, Keys.TAB, "wrong password", Keys.ENTER)
    page.sees("No user has this address and password.")
    page.complaints_of(403)
    keys(Keys.TAB, PASSWORD, Keys.ENTER)  # a tab into a field selects what is in it
    page.find("Sign out")
    page.settled()
    for _ in range(20):
        keys(Keys.TAB)
        if page.driver.switch_to.active_element.accessible_name == "Lists":
            break
    keys(Keys.ENTER)
    page.sees("What decides")


def test_a_list_is_made_renamed_and_erased(page: Any) -> None:
    page.go("Lists")
    page.press("New list")
    page.fill("Name", "Staff")
    page.press("Make the list")
    page.sees("Nobody is on this list yet")
    page.press("New list")
    page.fill("Name", "Staff")
    page.press("Make the list")
    page.sees("There is a list called")
    page.complaints_of(400)
    page.press("Cancel")
    page.row_press("Staff", "Rename")
    page.fill("Name", "Colleagues")
    page.press("Rename")
    page.sees("Colleagues")
    page.row_press("Colleagues", "Erase")
    page.press("Erase the list")
    page.sees_no("Colleagues")


def test_the_threshold_is_told_in_words(page: Any, box: Service, admin: str) -> None:
    list_id = ask(box, admin, "/person/list/create", name="Many")["list_id"]
    for number in range(20):
        vector = [0.0] * 128
        vector[number] = 1.0
        ask(box, admin, "/person/create", embedding=vector, list_id=list_id)
    page.go("Lists")
    page.sees("About one stranger in 100 will be taken for someone on this list.")
    page.go("Box")
    page.sees("about one stranger in 100 is taken for someone on it")
    ask(box, admin, "/person/list/delete", list_id=list_id)


def test_a_camera_gets_limits_of_its_own(page: Any, box: Service, admin: str) -> None:
    page.go("Cameras")
    page.press("New camera")
    page.fill("Name", "Front door")
    page.fill("Threshold", "0.85")
    page.fill("Least size of a new face, pixels", "60")
    page.press("Make the camera")
    page.sees("Front door")
    (source,) = ask(box, admin, "/sources")["sources"]
    assert (source["new_person_threshold"], source["new_person_square_min"]) == (0.85, 60)
    page.row_press("Front door", "Change")
    page.fill("Name", "Back door")
    page.press("Save")
    page.sees("Back door")
    page.row_press("Back door", "Delete")
    page.press("Delete the camera")
    page.sees("No camera yet")


def test_a_group_says_what_is_wanted(page: Any, box: Service, admin: str) -> None:
    page.go("Cameras")
    page.press("New group")
    page.fill("Name", "Entrance")
    page.press("Add an alert")
    page.choose("List", "main")
    page.fill("When found", '{"relay": 1}')
    page.press("Make the group")
    page.sees('main: found → {"relay":1}')
    (group,) = ask(box, admin, "/source/groups")["groups"]
    assert group["person_list_search"][0]["on_found"] == {"relay": 1}
    page.row_press("Entrance", "Delete")
    page.press("Delete the group")
    page.sees("No group yet")


def test_a_token_is_made_shown_once_and_revoked(page: Any, box: Service) -> None:
    page.go("Access")
    page.press("New token")
    page.fill("Name", "camera at the door")
    page.press("Make the token")
    page.sees("This is the only time that it is shown.")
    secret = page.find("Token").get_attribute("value")
    page.press("Done")
    posted = requests.post(f"{box.url}/person/create", data={"token": secret, "embedding": "nonsense"}, timeout=30)
    assert posted.status_code == 400  # it is good, what it came with is not
    page.row_press("camera at the door", "Change end")
    page.choose("Ends", "in 30 days")
    page.press("Save")
    page.sees("in 4 weeks")
    page.row_press("camera at the door", "Revoke")
    page.press("Revoke the token")
    page.sees_no("camera at the door")
    assert requests.post(f"{box.url}/person/create", data={"token": secret}, timeout=30).status_code == 401


def test_a_user_is_made_gets_another_password_and_goes(page: Any, box: Service) -> None:
    page.go("Access")
    page.press("New user")
    page.fill("E-mail", "bob@example.org")
    page.fill("Password", "a first password")
    page.press("Make the user")
    page.sees("bob@example.org")
    page.row_press("bob@example.org", "New password")
    page.fill("New password", "a second password")
    page.press("Save")
    page.sees("Password changed.")
    body = {"email": "bob@example.org", "password": "a second password"}
    assert requests.post(f"{box.url}/user/login", json=body, timeout=30).status_code == 200
    page.row_press("bob@example.org", "Delete")
    page.press("Delete the user")
    page.sees_no("bob@example.org")


def test_the_box_is_backed_up_and_tells_whose_models_it_has(page: Any, box: Service) -> None:
    page.go("Box")
    page.press("Back up now")
    page.sees("Made and read back: edge-")
    (made,) = (box.folder / "backups").glob("edge-*.tar")
    page.sees(made.name)
    page.press("Notice of the pack “default”")
    page.sees("Apache")
    page.press("Close")


def test_stages_are_read_out_of_prometheus_text(page: Any) -> None:
    text = """
# HELP edge_stage_seconds What a stage takes.
# TYPE edge_stage_seconds histogram
edge_stage_seconds_bucket{stage="detect",le="0.1"} 4
edge_stage_seconds_sum{stage="detect"} 0.4
edge_stage_seconds_count{stage="detect"} 4
edge_stage_seconds_sum{stage="embed"} 0.6
edge_stage_seconds_count{stage="embed"} 8
process_cpu_seconds_total 12
"""
    script = "import('/console/metrics.js').then((module) => arguments[1](module.stages(arguments[0])))"
    found = page.driver.execute_async_script(script, text)
    told = [(one["name"], round(one["ms"], 3), one["count"]) for one in found["rows"]]
    assert told == [("detect", 100, 4), ("embed", 75, 8)]
    assert (found["frames"], round(found["frameMs"], 3), round(found["perSecond"], 3)) == (4, 250, 4)


# --- people, in the browser ---


def sighted(box: Service, admin: str, photo: str, **texts: str) -> None:
    """Post a frame as a camera does: nobody is added."""
    files = {"image": (photo, (PHOTOS / photo).read_bytes())}
    headers = {"Authorization": f"Bearer {admin}"}
    assert box.session.post(f"{box.url}/action", data=texts, files=files, headers=headers, timeout=60).ok


def check_in_both_looks(page: Any) -> None:
    for scheme in ("dark", "light"):
        page.emulate(scheme)
        assert page.violations() == []


def test_sightings_come_live_and_say_why(page: Any, box: Service, admin: str) -> None:
    page.go("Live")
    page.sees("Nobody unknown was seen.")
    sighted(box, admin, "collins-1.jpg")
    page.sees("Like nobody of the list")
    page.press("Pause")
    sighted(box, admin, "biden-1.jpg")
    page.press("Go on (1)")
    page.until(lambda: len(page.driver.find_elements("css selector", ".sighting")) == 2, "two sightings")


def test_a_sighting_says_in_words_why_nobody_was_recognised(page: Any) -> None:
    page.go("Live")
    page.row_press("Unknown", "Why?")
    page.sees("Why was this face not recognised?")
    page.sees("It was compared with the list main.")
    page.sees("Nobody on it reached the threshold, 0.70.")
    page.sees("It did not become a new person")
    check_in_both_looks(page)
    page.press("Close")


def test_the_numbers_of_a_sighting_are_put_into_words(page: Any) -> None:
    script = """
const [sighting, done] = arguments;
import('/console/why.js').then((module) => {
  module.whyButton(sighting, {list: () => "Staff"}, "").click();
  const dialog = document.querySelector('dialog[open]');
  const told = dialog.innerText;
  dialog.close();
  done(told);
});
"""
    none = {"list_id": "x", "verdict": "reject", "person_id": None, "score": None, "threshold": 0.8, "reasons": []}

    def told(score: float | None, *reasons: tuple[str, float, float]) -> str:
        why = [{"check": check, "value": value, "limit": limit} for check, value, limit in reasons]
        return str(page.driver.execute_async_script(script, {**none, "score": score, "reasons": why}))

    near = told(0.7, ("uncertain_match", 0.7, 0.8))
    assert "scored 0.70; the threshold is 0.80. It is 0.10 short: strangers reach 0.70 10 times as often." in near
    assert "As it may be somebody known" in near
    rivals = told(0.85, ("uncertain_match", 0.04, 0.1))
    assert "the better one is ahead by 0.04, and 0.10 is needed" in rivals
    poor = told(None, ("size", 61.4, 80), ("yaw", 50, 45), ("passage_frames", 2, 3))
    assert "not good enough to become a new person" in poor
    assert "Too small: 61 px, the limit is 80 px. Let the person come closer" in poor
    assert "Turned too far to the side: 50°, the limit is 45°." in poor
    assert "Seen in too few frames of this visit: 2, the limit is 3." in poor


def test_a_stranger_is_named_in_one_click(page: Any, box: Service, admin: str) -> None:
    page.go("Unknowns")
    page.sees("Seen once")
    page.fill("Name", "Joe Biden")
    page.press("Save")
    page.sees("Joe Biden is known from now on.")
    page.go("Live")
    sighted(box, admin, "biden-1.jpg")
    page.find("Not Joe Biden")


def test_somebody_is_added_by_a_photo_that_is_looked_at_first(page: Any) -> None:
    page.go("People")
    page.press("Add somebody")
    page.find("Choose a photo").send_keys(str(PHOTOS / "obama-1.jpg"))
    page.sees("A good photo.")
    page.sees("Most like")
    page.sees("at least 80 px")
    check_in_both_looks(page)
    page.press("Save the person")
    page.sees("Type the name first.")
    page.fill("Name", "Barack Obama")
    page.press("Save the person")
    page.sees("Recognised by 1 photo")
    page.go("People")
    page.press("Add somebody")
    page.find("Choose a photo").send_keys(str(PHOTOS / "obama-2.jpg"))
    page.sees("Known already")
    page.press("Add the photo to Barack Obama")
    page.sees("Recognised by 2 photos")


def test_the_devices_camera_takes_the_photo(page: Any) -> None:
    page.go("People")
    page.press("Add somebody")
    page.press("Use the camera")
    page.find("Take the photo")
    page.until(
        lambda: page.driver.execute_script("return document.querySelector('video')?.videoWidth > 0"), "a picture"
    )
    page.press("Take the photo")
    page.sees("No face found.")  # Chromium's own test picture


def test_people_are_found_by_name_and_by_photo(page: Any) -> None:
    page.go("People")
    page.fill("Name", "obam")
    page.press("Search")
    page.sees("One person.")
    page.fill("Name", "nobody like that")
    page.press("Search")
    page.sees("Nobody found")
    page.driver.find_element("css selector", "input[type=file]").send_keys(str(PHOTOS / "obama-3.jpg"))
    page.sees("the most alike first")
    first = page.driver.find_element("css selector", ".people a.person")
    assert first.text.startswith("Barack Obama")


def test_who_has_no_name_is_found_and_named(page: Any, box: Service, admin: str) -> None:
    page.go("People")
    page.press("Without a name")
    page.sees("Everybody has a name")
    vector = [0.0] * 127 + [1.0]
    added = ask(box, admin, "/person/create", embedding=vector)["persons"][0]["person_id"]
    page.go("People")
    page.press("Without a name")
    page.sees("Open one to give them a name")
    assert len(page.driver.find_elements("css selector", ".people a.person")) == 1
    check_in_both_looks(page)
    page.press(f"Unnamed {added[:8]} main")
    page.press("Erase")
    page.press("Erase for good")
    page.sees("is erased.")


def test_the_audit_log_says_who_did_what(page: Any, box: Service, admin: str) -> None:
    made = ask(box, admin, "/token/create", expires="1", scope=["read"])["token"]
    ask(box, admin, "/token/delete", token_id=made["token_id"])
    page.go("Audit")
    page.sees("/token/delete")
    page.choose("What", "made a token")
    page.sees_no("/token/delete")
    page.sees("/token/create")
    (row, *_) = page.driver.find_elements("css selector", "tbody tr")
    assert "done" in row.text and "127.0.0.1" in row.text
    row.find_element("css selector", "button").click()
    page.sees("What it was about")
    page.press("Close")
    page.fill("About this id", "not an id")
    page.press("Search")
    page.sees("must be a UUID")
    page.complaints_of(400)


def test_a_person_is_edited_split_merged_moved_and_erased(page: Any, box: Service, admin: str) -> None:
    ask(box, admin, "/person/list/create", name="Guests")
    page.go("People")
    page.press("Barack Obama main")
    page.fill("Name", "Barack H. Obama")
    page.press("Add a field")
    page.fill("Field 2", "office 44")
    page.press("Save")
    page.sees("Saved.")
    page.find("Field 2")
    page.settled()
    check_in_both_looks(page)
    page.press("Photo 2")
    page.press("Split the ticked photos off")
    page.fill("Name of the other person", "Somebody else")
    page.press("Make two persons of one")
    page.sees("Recognised by 1 photo")
    page.press("Merge with somebody")
    page.fill("Name contains", "somebody el")
    page.press("Somebody else")
    page.press("Merge")
    page.sees("Recognised by 2 photos")
    page.press("Move to another list")
    page.choose("List", "Guests")
    page.press("Move")
    page.sees("On the list Guests.")
    page.press("Erase")
    page.press("Erase for good")
    page.sees("Barack H. Obama is erased.")
    assert ask(box, admin, "/persons", list_id=ask(box, admin, "/person/lists")["lists"][-1]["id"])["persons"] == []


# --- for everybody ---


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("view", ["Live", "People", "Unknowns", "Lists", "Cameras", "Access", "Audit", "Box"])
def test_axe_finds_nothing_wrong(page: Any, view: str, scheme: str) -> None:
    page.emulate(scheme)
    page.go(view)
    assert page.violations() == []
    page.emulate()


def test_axe_finds_nothing_wrong_in_a_dialog_and_on_a_phone(page: Any) -> None:
    page.go("Cameras")
    page.press("New camera")
    assert page.violations() == []
    page.press("Cancel")
    page.emulate("light", 390, 844)
    page.go("Access")
    assert page.violations() == []
    wide = "return document.documentElement.scrollWidth > document.documentElement.clientWidth"
    assert page.driver.execute_script(wide) is False
    page.emulate()
