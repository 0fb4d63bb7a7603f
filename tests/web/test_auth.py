"""Who may ask: both kinds of token in all three places, and everything that can be wrong with one."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge.errors import AccessDenied, ScopeMissing, TooManyAttempts, Unusable
from edge.gallery.access import Access
from edge.types import Scope, Token, User
from edge.web.auth import DAY_SECONDS, KEY_BYTES, Authenticator, Caller, Key, Keys
from edge.web.body import Body

NOW = 1_780_000_000
LEEWAY = 60
LONGEST = 30 * DAY_SECONDS
ADDRESS = {"REMOTE_ADDR": "192.0.2.7"}
KEY = Key("one", b"1" * KEY_BYTES)
OLD = Key("two", b"2" * KEY_BYTES)


class Clock:
    """Milliseconds, set by hand."""

    def __init__(self) -> None:
        self.seconds = NOW

    def __call__(self) -> int:
        return self.seconds * 1000


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def access(tmp_path: Path) -> Access:
    return Access(tmp_path / "access.sqlite3", monotonic=lambda: 0.0)


@pytest.fixture
def denied() -> list[str]:
    return []


@pytest.fixture
def auth(access: Access, clock: Clock, denied: list[str]) -> Authenticator:
    return Authenticator(
        Keys([KEY, OLD]), access, clock, max_valid_seconds=LONGEST, leeway_seconds=LEEWAY, on_denied=denied.append
    )


def claims(**changes: Any) -> dict[str, Any]:
    """The claims of a good token; None takes one out."""
    good = {"sub": "ann", "iat": NOW, "exp": NOW + 3600, "jti": "a-jti", "scope": "enrol read"}
    return {name: value for name, value in {**good, **changes}.items() if value is not None}


def signed(key: Key = KEY, algorithm: str = "HS256", headers: dict[str, Any] | None = None, **changes: Any) -> str:
    return jwt.encode(claims(**changes), key.secret, algorithm, headers=headers or {"kid": key.kid})


def raw(header: Any, payload: Any, secret: bytes = KEY.secret) -> str:
    """A token signed by HMAC-SHA256, whatever it says of itself."""
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in (header, payload)]
    signature = hmac.digest(secret, b".".join(parts), hashlib.sha256)
    return b".".join([*parts, base64.urlsafe_b64encode(signature).rstrip(b"=")]).decode()


def bearer(token: str) -> dict[str, Any]:
    return {**ADDRESS, "HTTP_AUTHORIZATION": f"Bearer {token}"}


def header(token: str) -> dict[str, Any]:
    return {**ADDRESS, "HTTP_TOKEN": token}


def field(token: Any) -> Body:
    return Body(texts={"token": (token,)})


def good(auth: Authenticator, token: str) -> Caller:
    caller = auth.from_headers(bearer(token))
    assert caller is not None
    return caller


def refused(auth: Authenticator, token: str) -> str:
    """The reason, which is the log's alone."""
    with pytest.raises(AccessDenied) as caught:
        auth.from_headers(bearer(token))
    assert type(caught.value) is AccessDenied
    assert caught.value.message == "access denied"
    return caught.value.mistakes[0].reason


# --- three places, two kinds ---


@pytest.fixture(params=["temporary", "permanent"])
def token(request: pytest.FixtureRequest, auth: Authenticator, access: Access) -> str:
    if request.param == "temporary":
        return auth.issue("ann", frozenset({Scope.READ}))
    return access.create_token("ann", frozenset({Scope.READ}), now_ms=NOW * 1000)[1]


def test_a_token_of_either_kind_is_taken_in_each_place(auth: Authenticator, token: str, denied: list[str]) -> None:
    by_bearer, by_header = auth.from_headers(bearer(token)), auth.from_headers(header(token))
    by_field, by_json = auth.from_body(field(token), ADDRESS), auth.from_body(Body(json={"token": token}), ADDRESS)
    assert by_bearer == by_header == by_field == by_json
    assert by_field.subject == "ann"
    assert by_field.scopes == {Scope.READ}
    assert (by_field.token_id is None) != (by_field.jti is None)
    assert denied == []


@pytest.mark.parametrize("scheme", ["Bearer ", "bearer ", "BEARER ", "Bearer   "])
def test_the_scheme_is_known_in_any_case(auth: Authenticator, token: str, scheme: str) -> None:
    assert auth.from_headers({"HTTP_AUTHORIZATION": scheme + token})


def test_without_a_header_the_body_decides(auth: Authenticator) -> None:
    assert auth.from_headers(ADDRESS) is None
    with pytest.raises(AccessDenied):
        auth.from_body(Body(), ADDRESS)


def test_the_first_place_counts_even_if_a_later_one_is_good(auth: Authenticator, token: str) -> None:
    for wrong in ("Bearer wrong", "Bearer ", "Bearer", "", "Basic dXNlcjpwYXNz", token):
        with pytest.raises(AccessDenied):
            auth.from_headers({**header(token), "HTTP_AUTHORIZATION": wrong})
    assert auth.from_headers({**header("wrong"), **bearer(token)})
    for wrong in ("wrong", ""):
        with pytest.raises(AccessDenied):
            auth.from_headers(header(wrong))


@pytest.mark.parametrize(
    "body",
    [
        field(""),
        field("wrong"),
        Body(json={"token": 5}),
        Body(json={"token": None}),
        Body(json={"token": ["x"]}),
        Body(texts={"token": ("x", "y")}),
        Body(files={"token": (b"x",)}),
    ],
)
def test_a_field_that_is_no_token(auth: Authenticator, body: Body, denied: list[str]) -> None:
    with pytest.raises(AccessDenied):
        auth.from_body(body, ADDRESS)
    assert denied == ["192.0.2.7"]


def test_a_token_sent_twice_in_one_body_is_refused(auth: Authenticator, token: str) -> None:
    with pytest.raises(AccessDenied):
        auth.from_body(Body(texts={"token": (token, token)}), ADDRESS)


def test_whoever_counts_attempts_is_told_and_may_refuse_otherwise(access: Access, clock: Clock) -> None:
    def too_many(address: str) -> None:
        raise TooManyAttempts

    with pytest.raises(TooManyAttempts):
        Authenticator(Keys([KEY]), access, clock, on_denied=too_many).from_headers(header("wrong"))


# --- permanent tokens ---


def test_a_permanent_token_brings_what_it_is_bound_to(auth: Authenticator, access: Access) -> None:
    token, secret = access.create_token(
        "door", frozenset({Scope.ENROL}), "a-list", "a-source", NOW * 1000 + 5, now_ms=NOW * 1000
    )
    caller = good(auth, secret)
    assert (caller.list_id, caller.source_id, caller.token_id) == ("a-list", "a-source", token.token_id)
    assert (caller.jti, caller.expires_ms) == (None, NOW * 1000 + 5)
    assert access.tokens()[0].last_used_ms == NOW * 1000


def test_a_permanent_token_ends_by_expiry_and_by_revocation(auth: Authenticator, access: Access, clock: Clock) -> None:
    _, expiring = access.create_token("a", frozenset({Scope.READ}), expires_ms=(NOW + 1) * 1000, now_ms=NOW * 1000)
    token, revoked = access.create_token("b", frozenset({Scope.READ}), now_ms=NOW * 1000)
    good(auth, expiring)
    clock.seconds += 1
    assert refused(auth, expiring) == "unknown, revoked or expired"
    clock.seconds = 0
    assert refused(auth, expiring) == "unknown, revoked or expired"
    good(auth, revoked)
    access.revoke(token.token_id)
    assert refused(auth, revoked) == "unknown, revoked or expired"


# --- temporary tokens: what is good ---


def test_an_issued_token_says_what_was_asked_for(auth: Authenticator) -> None:
    token = auth.issue("ann", frozenset({Scope.READ, Scope.ENROL}), 60, list_id="a-list", source_id="a-source")
    payload = jwt.decode(token, KEY.secret, algorithms=["HS256"], options={"verify_exp": False, "verify_iat": False})
    assert jwt.get_unverified_header(token) == {"alg": "HS256", "kid": "one", "typ": "JWT"}
    assert payload.pop("jti")
    assert payload == {
        "sub": "ann",
        "iat": NOW,
        "exp": NOW + 60,
        "scope": "enrol read",
        "list_id": "a-list",
        "source_id": "a-source",
    }
    caller = good(auth, token)
    assert (caller.subject, caller.scopes) == ("ann", {Scope.READ, Scope.ENROL})
    assert (caller.list_id, caller.source_id, caller.expires_ms) == ("a-list", "a-source", (NOW + 60) * 1000)


@pytest.mark.parametrize(("asked", "given"), [(None, LONGEST), (LONGEST * 9, LONGEST), (5, 5)])
def test_no_token_is_issued_for_longer_than_any_may_be(auth: Authenticator, asked: int | None, given: int) -> None:
    assert good(auth, auth.issue("ann", frozenset({Scope.READ}), asked)).expires_ms == (NOW + given) * 1000


def test_tokens_differ_even_where_all_else_is_alike(auth: Authenticator) -> None:
    assert len({auth.issue("ann", frozenset({Scope.READ})) for _ in range(10)}) == 10


def test_a_token_of_an_older_key_is_good_until_that_key_goes(auth: Authenticator, access: Access, clock: Clock) -> None:
    token = signed(OLD)
    good(auth, token)
    assert "unknown key" in refused(Authenticator(Keys([KEY]), access, clock), token)


# --- temporary tokens: what is wrong ---


@pytest.mark.parametrize("claim", ["exp", "iat", "sub", "jti", "scope"])
def test_each_claim_is_required(auth: Authenticator, claim: str) -> None:
    assert claim in refused(auth, signed(**{claim: None}))
    assert claim in refused(auth, raw({"alg": "HS256", "kid": "one"}, {**claims(), claim: None}))


@pytest.mark.parametrize(
    ("claim", "value"),
    [
        *[
            (claim, value)
            for claim in ("exp", "iat", "nbf")
            for value in ("soon", "1780000000", 1.5, True, -1, 1 << 60, [])
        ],
        *[("scope", value) for value in ("", "everything", "enrol  read", 5, ["enrol"], {"enrol": 1})],
        *[(claim, value) for claim in ("sub", "jti") for value in (5, ["x"], {})],
        *[(claim, value) for claim in ("list_id", "source_id") for value in (5, ["x"], {})],
    ],
)
def test_a_claim_of_another_type_is_refused(auth: Authenticator, claim: str, value: Any) -> None:
    refused(auth, raw({"alg": "HS256", "kid": "one"}, {**claims(), claim: value}))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"exp": NOW}, "expired"),
        ({"exp": NOW - 1}, "expired"),
        ({"exp": 0}, "expired"),
        ({"iat": NOW + LEEWAY + 1}, "not valid yet"),
        ({"nbf": NOW + LEEWAY + 1}, "not valid yet"),
        ({"exp": NOW + LONGEST + LEEWAY + 1}, "longer than any may be"),
        ({"exp": 1 << 39}, "longer than any may be"),
        ({"iat": NOW - LONGEST - LEEWAY, "exp": NOW + 1}, "longer than any may be"),
    ],
)
def test_times_that_are_refused(auth: Authenticator, changes: dict[str, int], reason: str) -> None:
    assert reason in refused(auth, signed(**changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"exp": NOW + 1},
        {"iat": NOW + LEEWAY},
        {"nbf": NOW + LEEWAY},
        {"exp": NOW + LONGEST},
        {"exp": NOW + LONGEST + LEEWAY},
        {"iat": NOW - LONGEST + 3600},
    ],
)
def test_times_that_are_just_good(auth: Authenticator, changes: dict[str, int]) -> None:
    good(auth, signed(**changes))


def test_a_clock_set_to_1970_revives_no_token(
    auth: Authenticator, access: Access, clock: Clock, tmp_path: Path
) -> None:
    token = signed(exp=NOW + 10)
    good(auth, token)
    clock.seconds = NOW + 10
    assert refused(auth, token) == "expired"
    clock.seconds = 0
    assert refused(auth, token) == "expired"
    restarted = Authenticator(Keys([KEY]), Access(tmp_path / "access.sqlite3"), clock, max_valid_seconds=LONGEST)
    good(restarted, auth.issue("ann", frozenset({Scope.READ}), 60))


@pytest.mark.parametrize("year_seconds", [1_000_000_000, 4_100_000_000])
def test_times_are_judged_by_our_clock_and_not_by_the_systems(
    auth: Authenticator, clock: Clock, year_seconds: int
) -> None:
    clock.seconds = year_seconds
    good(auth, auth.issue("ann", frozenset({Scope.READ}), 60))
    good(auth, signed(iat=year_seconds, nbf=year_seconds, exp=year_seconds + 60))


def test_while_the_clock_is_set_back_new_tokens_are_good_and_old_ones_go_on(auth: Authenticator, clock: Clock) -> None:
    before = auth.issue("ann", frozenset({Scope.READ}), 60)
    clock.seconds = 0
    good(auth, before)
    assert good(auth, auth.issue("ann", frozenset({Scope.READ}), 60)).expires_ms == (NOW + 60) * 1000


class Counted(Access):
    """The same, and it knows how often it was asked."""

    looks = 0

    def is_revoked(self, jti: str) -> bool:
        self.looks += 1
        return super().is_revoked(jti)

    def find(self, secret: str, now_ms: int) -> Token | None:
        self.looks += 1
        return super().find(secret, now_ms)

    def user(self, user_id: str) -> User | None:
        self.looks += 1
        return super().user(user_id)


@pytest.mark.parametrize(
    "wrong",
    [
        *("x", "eyJ.e30.", signed(exp=1), signed(key=Key(KEY.kid, b"x" * 32)), signed(iat=1 << 39)),
        *(signed(jti="revoked"), "8bc56950-e6ac-11f1-b8f9-4149838eb53e"),
    ],
)
def test_a_wrong_token_costs_two_looks_as_one_whose_user_is_gone_does(wrong: str, tmp_path: Path, clock: Clock) -> None:
    counted = Counted(tmp_path / "access.sqlite3", monotonic=lambda: 0.0)
    counted.revoke_temporary("revoked", NOW * 2000, NOW * 1000)
    auth = Authenticator(Keys([KEY]), counted, clock)
    with pytest.raises(AccessDenied):
        auth.from_headers(bearer(wrong))
    assert counted.looks == 2


@pytest.mark.parametrize(
    "algorithm", ["none", "None", "NONE", "nOnE", "", "HS384", "HS512", "RS256", "ES256", "EdDSA", None, ["HS256"], 5]
)
def test_only_hs256_is_accepted(auth: Authenticator, algorithm: Any) -> None:
    refused(auth, raw({"alg": algorithm, "kid": "one", "typ": "JWT"}, claims()))
    refused(auth, raw({"alg": algorithm, "kid": "one"}, claims()).rpartition(".")[0] + ".")


@pytest.mark.filterwarnings("ignore:The HMAC key is")  # ours is as long as HS256 wants it
@pytest.mark.parametrize("algorithm", ["HS384", "HS512"])
def test_a_right_signature_by_another_algorithm_is_refused(auth: Authenticator, algorithm: str) -> None:
    refused(auth, signed(Key("one", KEY.secret), algorithm))


def test_a_token_without_a_signature_is_refused(auth: Authenticator) -> None:
    refused(auth, jwt.encode(claims(), None, "none", headers={"kid": "one"}))
    refused(auth, signed().rpartition(".")[0] + ".")
    refused(auth, signed().rpartition(".")[0])


def test_a_key_that_a_token_brings_is_not_used(auth: Authenticator) -> None:
    """RS/HS confusion and its kin: the header names or holds the key that the forger signed with."""
    forger = b"-----BEGIN PUBLIC KEY-----\nMFwwDQYJKoZIhvcNAQEBBQADSwAwSAJB\n-----END PUBLIC KEY-----\n"
    own = {"kty": "oct", "k": base64.urlsafe_b64encode(forger).decode()}
    for more in (
        {},
        {"jwk": own},
        {"jku": "http://192.0.2.7/keys"},
        {"x5u": "http://192.0.2.7/"},
        {"crit": ["b64"], "b64": False},
    ):
        refused(auth, raw({"alg": "HS256", "kid": "one", **more}, claims(), forger))
        refused(auth, raw({"alg": "RS256", "kid": "one", **more}, claims(), forger))


@pytest.mark.parametrize("secret", [b"", b"1", b"1" * 31, b"2" * KEY_BYTES, b"\x00" * KEY_BYTES])
def test_a_token_signed_with_another_key_is_refused(auth: Authenticator, secret: bytes) -> None:
    assert "InvalidSignature" in refused(auth, raw({"alg": "HS256", "kid": "one"}, claims(), secret))


@pytest.mark.parametrize("kid", [None, "", "three", "../../dev/null", "' OR 1=1 --", 1, ["one"], {"one": 1}])
def test_a_key_id_that_names_none_is_refused(auth: Authenticator, kid: Any) -> None:
    refused(auth, raw({"alg": "HS256", "kid": kid}, claims()))
    refused(auth, raw({"alg": "HS256"}, claims()))


def test_every_changed_character_is_noticed(auth: Authenticator) -> None:
    token = signed()
    for position in range(0, len(token) - 1):
        changed = token[:position] + ("A" if token[position] != "A" else "B") + token[position + 1 :]
        refused(auth, changed)


@pytest.mark.parametrize(
    "token",
    [
        "",
        ".",
        "..",
        "...",
        "a.b.c",
        "Bearer",
        "e30.e30.e30",
        "null",
        "\x00",
        "é.é.é",
        "x" * 5000,
        ".".join(["x" * 5000] * 3),
        "0" * 36,
    ],
)
def test_what_is_no_token_is_refused(auth: Authenticator, token: str) -> None:
    refused(auth, token)


def test_a_token_that_is_too_long_is_refused_though_it_is_right(auth: Authenticator) -> None:
    assert refused(auth, signed(note="x" * 5000)) == "malformed"


def test_deep_json_in_a_token_is_refused(auth: Authenticator) -> None:
    deep = base64.urlsafe_b64encode(b"[" * 2000).decode()
    refused(auth, f"{deep}.e30.e30")
    shallow = base64.urlsafe_b64encode(b'{"alg":"HS256","kid":' + b"[" * 900).decode()
    refused(auth, f"{shallow}.{deep}.e30")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.text(max_size=60)
    | st.lists(st.binary(max_size=40), min_size=3, max_size=3).map(
        lambda parts: ".".join(base64.urlsafe_b64encode(p).decode() for p in parts)
    )
)
def test_any_text_is_refused_and_nothing_worse(auth: Authenticator, token: str) -> None:
    for environ in (bearer(token), header(token), {"HTTP_AUTHORIZATION": token}):
        with pytest.raises(AccessDenied):
            auth.from_headers(environ)


# --- logout ---


def test_after_logout_the_token_is_refused_and_others_are_not(
    auth: Authenticator, access: Access, clock: Clock
) -> None:
    token, other = auth.issue("ann", frozenset({Scope.READ})), auth.issue("ann", frozenset({Scope.READ}))
    auth.revoke(good(auth, token))
    assert refused(auth, token) == "revoked"
    good(auth, other)
    elsewhere = Authenticator(Keys([KEY]), access, clock, max_valid_seconds=LONGEST)
    assert refused(elsewhere, token) == "revoked"


def test_logout_leaves_a_permanent_token(auth: Authenticator, access: Access) -> None:
    _, secret = access.create_token("door", frozenset({Scope.READ}), now_ms=NOW * 1000)
    auth.revoke(good(auth, secret))
    good(auth, secret)


# --- what a caller may ---


@pytest.mark.parametrize("scope", Scope)
def test_scopes(scope: Scope) -> None:
    Caller("ann", frozenset({scope})).require(scope)
    Caller("ann", frozenset({Scope.ADMIN})).require(scope)
    for other in set(Scope) - {scope}:
        if scope is not Scope.ADMIN:
            with pytest.raises(ScopeMissing) as caught:
                Caller("ann", frozenset({scope})).require(other)
            assert caught.value.message == "access denied"


@pytest.mark.parametrize("scope", [Scope.ENROL, Scope.ADMIN])
def test_a_bound_token_works_where_it_is_bound_to(scope: Scope) -> None:
    bound = Caller("door", frozenset({scope}), list_id="a", source_id="s")
    assert bound.may_use(None, None) == ("a", "s")
    assert bound.may_use("a", "s") == ("a", "s")
    for list_id, source_id in (("b", None), (None, "t"), ("a", "t"), ("b", "s")):
        with pytest.raises(ScopeMissing):
            bound.may_use(list_id, source_id)


def test_an_unbound_token_works_everywhere() -> None:
    assert Caller("door", frozenset({Scope.ENROL})).may_use("b", "t") == ("b", "t")
    assert Caller("door", frozenset({Scope.ENROL})).may_use(None, None) == (None, None)


# --- the signing keys ---


def test_keys_are_made_at_the_first_start_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    umask = os.umask(0)
    try:
        made = Keys.load_or_create(path)
    finally:
        os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(made.signing.secret) == KEY_BYTES
    assert Keys.load_or_create(path).signing == made.signing
    assert [entry.name for entry in tmp_path.iterdir()] == ["keys.json"]
    assert Keys.load_or_create(tmp_path / "other.json").signing != made.signing


def test_two_first_starts_at_once_agree(tmp_path: Path) -> None:
    path, found, barrier = tmp_path / "keys.json", [], threading.Barrier(8)

    def start() -> None:
        barrier.wait()
        found.append(Keys.load_or_create(path).signing)

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert set(found) == {Keys.load(path).signing}


def test_rotation_signs_with_the_new_key_and_knows_the_old(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    first = Keys.load_or_create(path)
    second = first.rotated(1000, keep_ms=500)
    second.save(path)
    loaded = Keys.load(path)
    assert loaded.signing == second.signing != first.signing
    kept = loaded.find(first.signing.kid)
    assert kept is not None
    assert (kept.secret, kept.retired_ms) == (first.signing.secret, 1000)
    assert loaded.rotated(1499, keep_ms=500).find(first.signing.kid)
    assert loaded.rotated(1001, keep_ms=0).secrets()[1:] == []
    third = loaded.rotated(1500, keep_ms=500)
    assert third.find(second.signing.kid)
    assert third.find(first.signing.kid) is None
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o601, 0o660, 0o666])
def test_keys_that_are_open_to_others_are_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "keys.json"
    Keys.load_or_create(path)
    path.chmod(mode)
    with pytest.raises(Unusable, match="chmod 600"):
        Keys.load_or_create(path)
    path.chmod(0o440)
    Keys.load_or_create(path)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "5",
        '{"keys": []}',
        '{"keys": [{}]}',
        '{"keys": 5}',
        '{"keys": [{"kid": "a", "key": "%"}]}',
        '{"keys": [{"kid": "a", "key": "c2hvcnQ="}]}',
    ],
)
def test_a_file_that_holds_no_keys_is_refused_and_left_alone(tmp_path: Path, content: str) -> None:
    path = tmp_path / "keys.json"
    path.write_text(content)
    path.chmod(0o600)
    with pytest.raises(Unusable):
        Keys.load_or_create(path)
    assert path.read_text() == content


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Unusable, match="cannot be made: No such file"):
        Keys.load_or_create(tmp_path / "nowhere" / "keys.json")


@pytest.mark.parametrize("keys", [[], [Key("a", b"")], [Key("a", b"1" * 31)], [KEY, Key("a", b"short")]])
def test_keys_that_are_too_short_are_refused(keys: list[Key]) -> None:
    with pytest.raises(Unusable, match="32 bytes"):
        Keys(keys)


def test_judging_a_token_is_quick(auth: Authenticator, measured: Callable[[Callable[[], Any]], float]) -> None:
    token = signed()
    assert measured(lambda: good(auth, token)) < 0.002, "about 0.2 ms"


@pytest.fixture
def measured() -> Callable[[Callable[[], Any]], float]:
    def seconds(work: Callable[[], Any]) -> float:
        started = time.process_time()
        for _ in range(100):
            work()
        return (time.process_time() - started) / 100

    return seconds
