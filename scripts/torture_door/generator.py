"""Requests as nobody should send them: hypothesis strategies of raw bytes, from the request line to the last part."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

from torture_door.common import BOUNDARY, FORM_TYPE

ROUTES = (
    *("/person/create",) * 6,
    *("/action", "/detect", "/compare", "/vector/search", "/person/fusion", "/person/update", "/person/delete"),
    *("/persons", "/person", "/person/lists", "/person/list/create", "/person/list/update", "/source/create"),
    *("/source/group/create", "/sources", "/token/create", "/token/update", "/tokens", "/history", "/user/login"),
    *("/person/reject", "/person/rejections", "/health", "/openapi.json", "/metrics", "/nowhere", "/images/a/b/c"),
)
NAMES = (
    *(
        "image",
        "images",
        "embedding",
        "embeddings",
        "list_id",
        "person_id",
        "source_id",
        "group_id",
        "fields",
        "fields[]",
    ),
    *(
        "feature_check",
        "new_person_threshold",
        "new_person_yaw_max",
        "replace_on_found",
        "multi",
        "yaw",
        "token",
        "name",
    ),
    *("limit", "cursor", "drop_image", "embedding_only", "person_list_search", "scope", "expires", "threshold", ""),
)
UUID = "8bc56950-e6ac-11f1-b8f9-4149838eb53e"
VALUES = (
    *(
        "",
        "true",
        "FALSE",
        "0",
        "-1",
        "1e999",
        "NaN",
        "Infinity",
        "0x10",
        "null",
        "[]",
        "{}",
        "[[[[",
        '{"name":1}',
        UUID,
    ),
    *(UUID.upper(), "' OR 1=1 --", "../../etc/passwd", "%00", "\x00", "\ud7ff", "é" * 40, "𝄞", "9" * 500, "1" * 300),
    *(
        '["yaw","yaw"]',
        '{"name":"yaw","min":"a"}',
        "1,2,3",
        "AAAA",
        "never",
        "2026-02-30",
        "-0",
        "1_000",
        "١٢",
        "\ufeff",
    ),
)
HEADER_TRICKS = (
    *(b"Content-Length: 5", b"Content-Length: -1", b"Content-Length: 1e3", b"Content-Length: 99999999999999999999"),
    *(b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity", b"Transfer-Encoding : chunked", b" folded: yes"),
    *(b"Expect: 100-continue", b"Expect: nonsense", b"Host: other", b"Connection: close, keep-alive", b"X: \x00", b":"),
    *(b"Content-Encoding: gzip", b"Content-Type: multipart/form-data", b"Content-Type: text/plain", b"no colon here"),
    *(
        b"X-Forwarded-For: 1.2.3.4, x",
        b"Forwarded: for=x",
        b"Upgrade: h2c",
        b"Authorization: Basic eDp5",
        b"X: \xff\xfe",
    ),
    *(b"Range: bytes=0-1", b"If-None-Match: *", b"Cookie: a=b; a=b", b"Content-Type: application/json; charset=utf-7"),
)
TYPES = (
    *(
        FORM_TYPE,
        FORM_TYPE,
        "application/json",
        "application/x-www-form-urlencoded",
        "multipart/form-data",
        "text/xml",
        "",
    ),
    *(
        f'multipart/form-data; boundary="{BOUNDARY}"',
        "multipart/form-data; boundary=" + "b" * 300,
        "application/json;;=;",
    ),
    *("multipart/mixed; boundary=x", "multipart/form-data; boundary=é", "APPLICATION/JSON; charset=latin-1"),
)

texts = st.sampled_from(VALUES) | st.text(max_size=40).map(lambda text: text.encode("utf-8", "replace").decode())
values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


@st.composite
def damaged(draw: st.DrawFn, data: bytes) -> bytes:
    """Return the bytes with a few cut out, doubled, flipped or put in."""
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        length = draw(st.integers(1, 16))
        how = draw(st.integers(0, 4))
        if how == 0:
            data = data[:at] + data[at + length :]
        elif how == 1:
            data = data[:at] + draw(st.binary(min_size=1, max_size=8)) + data[at:]
        elif how == 2:
            data = data[:at] + data[at : at + length] * 2 + data[at + length :]
        elif how == 3 and data:
            data = data[:at] + bytes([data[at] ^ 1 << draw(st.integers(0, 7))]) + data[at + 1 :]
        else:
            data = data[:at]
    return data


@st.composite
def parts(draw: st.DrawFn, pictures: Sequence[bytes]) -> bytes:
    """Return a multipart body whose parts have odd names, headers and contents."""
    body = b""
    for _ in range(draw(st.integers(0, 5))):
        name = draw(st.sampled_from(NAMES))
        wild = draw(st.integers(0, 9))
        headers = [f'Content-Disposition: form-data; name="{name}"']
        content = draw(texts).encode("utf-8", "replace")
        if name.startswith("image") or wild == 0:
            headers[0] += draw(
                st.sampled_from(['; filename="a.jpg"', "; filename*=utf-8''%ff", '; filename=""', "; filename"])
            )
            content = draw(damaged(draw(st.sampled_from(pictures))))
        if wild == 1:
            headers = draw(
                st.sampled_from([[], ["Content-Disposition: attachment"], [*headers, *headers], ["X" * 5000]])
            )
        if wild == 2:
            headers.append(
                draw(st.sampled_from(["Content-Type: text/plain; charset=utf-16", "Content-Type: image/png", "X:"]))
            )
        if wild == 3:
            headers.append(f"Content-Transfer-Encoding: {draw(st.sampled_from(['base64', 'binary', 'x']))}")
        end = draw(st.sampled_from(["\r\n"] * 8 + ["\n", "\r"]))
        body += f"--{BOUNDARY}\r\n{end.join(headers)}\r\n\r\n".encode() + content + b"\r\n"
    return body + draw(st.sampled_from([f"--{BOUNDARY}--\r\n".encode()] * 6 + [b"", b"--", f"--{BOUNDARY}".encode()]))


@st.composite
def documents(draw: st.DrawFn, pictures: Sequence[bytes]) -> bytes:
    """Return JSON, or nearly."""
    content = draw(st.dictionaries(st.sampled_from(NAMES), values, max_size=5) | values)
    if isinstance(content, dict) and draw(st.booleans()):
        content["image"] = base64.b64encode(draw(damaged(draw(st.sampled_from(pictures))))).decode()
    return json.dumps(content).encode(draw(st.sampled_from(["utf-8"] * 6 + ["utf-16", "utf-8-sig"])), "replace")


@st.composite
def pairs(draw: st.DrawFn) -> bytes:
    """Return a urlencoded form, not always well escaped."""
    body = b"&".join(
        draw(st.sampled_from(NAMES)).encode() + b"=" + draw(texts).encode("utf-8", "replace").replace(b"&", b"%26")
        for _ in range(draw(st.integers(0, 6)))
    )
    return body + draw(st.sampled_from([b""] * 5 + [b"%", b"%zz", b"&&&=", b"=%ff", b"&" * 700]))


def chunked(body: bytes, draw: st.DrawFn) -> bytes:
    """Return the body in chunks, whose sizes may be lies."""
    half = len(body) // 2
    sizes = draw(
        st.sampled_from([("{:x}", "0")] * 4 + [("{:X};a=b", "0"), ("0x{:x}", "0"), ("-{:x}", "0"), ("{:x}", "00")])
    )
    lines = [
        sizes[0].format(len(piece)).encode() + b"\r\n" + piece + b"\r\n"
        for piece in (body[:half], body[half:])
        if piece
    ]
    return (
        b"".join(lines)
        + sizes[1].encode()
        + draw(st.sampled_from([b"\r\n\r\n"] * 3 + [b"\r\nX: y\r\n\r\n", b"\r\n", b""]))
    )


@st.composite
def requests(draw: st.DrawFn, token: str, pictures: Sequence[bytes], bodies: Sequence[bytes]) -> bytes:
    """Return a request, with up to two tricks among its headers, and now and then damage to the whole of it."""
    kind = draw(st.integers(0, 9))
    if kind <= 4:
        body, content_type = draw(parts(pictures)), FORM_TYPE
    elif kind <= 6:
        body, content_type = draw(documents(pictures)), "application/json"
    elif kind == 7:
        body, content_type = draw(pairs()), "application/x-www-form-urlencoded"
    elif kind == 8 and bodies:
        body = draw(damaged(draw(st.sampled_from(bodies))))
        content_type = f"multipart/form-data; boundary={draw(st.sampled_from(['x', 'xxx', 'MyBoundary', BOUNDARY]))}"
    else:
        body, content_type = draw(st.binary(max_size=200)), draw(st.sampled_from(TYPES))
    if draw(st.integers(0, 9)) == 0:
        content_type = draw(st.sampled_from(TYPES))
    if draw(st.integers(0, 3)) == 0:
        body = draw(damaged(body))
    prefix, path = draw(st.sampled_from(["", "/v1"])), draw(st.sampled_from(ROUTES))
    path += draw(st.sampled_from([""] * 12 + ["/", "?a=b", "?%ff", "%00", "/../x", "#f", "é", " ", "//", "%2e%2e"]))
    method = draw(
        st.sampled_from(["POST"] * 9 + ["GET", "PUT", "DELETE", "HEAD", "OPTIONS", "TRACE", "post", "A" * 300, ""])
    )
    version = draw(
        st.sampled_from(["HTTP/1.1"] * 15 + ["HTTP/1.0", "HTTP/0.9", "HTTP/2.0", "HTTP/1.10", "http/1.1", ""])
    )
    lines = [f"{method} {prefix}{path} {version}".encode(), b"Host: edge", f"Content-Type: {content_type}".encode()]
    lines += [f"token: {token}".encode()] * draw(st.sampled_from([1] * 9 + [0, 2]))
    lines += [draw(st.sampled_from(HEADER_TRICKS)) for _ in range(draw(st.sampled_from([0] * 6 + [1, 2])))]
    if draw(st.integers(0, 9)) == 0:
        lines.append(b"Transfer-Encoding: chunked")
        body = chunked(body, draw)
    else:
        lines.append(f"Content-Length: {max(0, len(body) + draw(st.sampled_from([0] * 15 + [1, -1, 1000])))}".encode())
    whole = draw(st.sampled_from([b"\r\n"] * 15 + [b"\n"])).join([*lines, b"", b""]) + body
    return draw(damaged(whole)) if draw(st.integers(0, 9)) == 0 else whole
