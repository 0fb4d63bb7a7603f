"""The code that makes a box one of a fleet, what each box makes of it, and the command that takes it."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography import x509

from edge import config
from edge.errors import Unusable
from edge.fleet import code, membership, terms
from edge.gallery.access import Access
from edge.types import Pack, Scope
from tests.real_process import Service

LIST_ID = "0b5e6f4c-3f6e-11ef-9f6e-0242ac120002"
SERVERS = ("192.168.1.11:4222", "box-2.local:4300", "[fd00::3]:4222")


@pytest.fixture
def fleet() -> code.Membership:
    return code.new(LIST_ID, ["192.168.1.11", "box-2.local:4300", "[fd00::3]"])


def test_a_code_says_all_that_another_box_needs(fleet: code.Membership) -> None:
    assert code.read(fleet.code) == fleet
    assert fleet.servers == SERVERS
    spoken = fleet.code.lower().replace("-", " ")
    assert code.read(spoken) == fleet, "typed from paper, in whatever case and grouping"


def test_every_single_mistake_is_found(fleet: code.Membership) -> None:
    text = fleet.code
    for place in range(0, len(text), 7):
        if text[place] == "-":
            continue
        wrong = text[:place] + ("A" if text[place] != "A" else "B") + text[place + 1 :]
        with pytest.raises(Unusable, match="not one of a fleet"):
            code.read(wrong)
    for cut in ("", "A", text[:-1], text[: len(text) // 2], "!" + text):
        with pytest.raises(Unusable):
            code.read(cut)


@pytest.mark.parametrize("servers", [["a", "b"], ["a"] * 6, ["a:0"], ["a:70000"], [""], ["x" * 300]])
def test_servers_that_cannot_be_are_refused(servers: list[str]) -> None:
    with pytest.raises(Unusable, match="nothing was changed"):
        code.new(LIST_ID, servers)


def test_every_box_makes_the_same_secrets_of_it_and_another_fleet_makes_others(fleet: code.Membership) -> None:
    again, other = code.read(fleet.code), code.new(LIST_ID, [])
    assert again.client_password == fleet.client_password != other.client_password
    assert again.client_password != again.route_password
    assert again.ca_key.private_numbers() == fleet.ca_key.private_numbers() != other.ca_key.private_numbers()


def test_what_a_box_keeps_of_it_is_for_its_owner_alone(fleet: code.Membership, tmp_path: Path) -> None:
    membership.save(tmp_path, fleet)
    file = membership.save_server(tmp_path, fleet, SERVERS[0], stream_megabytes=100)
    assert membership.load(tmp_path) == fleet
    for path in (tmp_path / "fleet").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    certificate = x509.load_pem_x509_certificate((tmp_path / "fleet" / "server.pem").read_bytes())
    certificate.verify_directly_issued_by(x509.load_pem_x509_certificate((tmp_path / "fleet" / "ca.pem").read_bytes()))
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert "192.168.1.11" in map(str, names.get_values_for_type(x509.IPAddress))
    assert "sync_interval: always" in file.read_text()
    assert all(f"@{one}" in file.read_text() for one in ("192.168.1.11:6222", "box-2.local:6300", "[fd00::3]:6222"))
    membership.forget(tmp_path)
    assert membership.load(tmp_path) is None


def test_the_sites_own_servers_are_reached_with_what_the_settings_say(
    fleet: code.Membership, tmp_path: Path, pack: Pack
) -> None:
    membership.save(tmp_path, fleet)
    password = tmp_path / "password"
    password.write_text("correct horse\n")
    flags = [f"data.folder={tmp_path}", "fleet.servers=nats://a:4222 nats://b:4222", "fleet.user=edge"]
    flags.append(f"fleet.password_file={password}")
    password.chmod(0o600)
    found = terms.of(config.load(Path(os.devnull), environment={}, flags=flags), pack)
    assert (found.servers, found.user, found.password) == (
        ("nats://a:4222", "nats://b:4222"),
        "edge",
        "correct horse",
    )
    password.chmod(0o644)
    with pytest.raises(Unusable, match=r"fleet\.password_file: .* is for others to read"):
        terms.of(config.load(Path(os.devnull), environment={}, flags=flags), pack)
    flags[-1] = f"fleet.ca_file={password}"
    with pytest.raises(Unusable, match=r"fleet\.ca_file: .* holds no certificate"):
        terms.of(config.load(Path(os.devnull), environment={}, flags=flags), pack)


def test_a_fleet_is_begun_joined_and_left_by_the_command(tmp_path: Path) -> None:
    first, second = Service(tmp_path / "a"), Service(tmp_path / "b")
    told = first.edge("fleet", "init", "--servers", "10.9.9.9")
    text = first.edge("fleet", "code").strip()
    assert text in told and "like a password" in told
    second.edge("token", "list")  # a data folder that has been used
    access = Access(tmp_path / "b" / "access.sqlite3")
    access.create_token("door", frozenset({Scope.ENROL}), list_id="list-before", now_ms=1)
    access.follow_list("list-before", "list-after")
    assert [one.list_id for one in access.tokens()] == ["list-after"]
    assert "Joined" in second.edge("fleet", "join", text)
    refused = subprocess.run(
        [sys.executable, "-m", "edge", "fleet", "join", text], env=second.environment(), capture_output=True, text=True
    )
    assert refused.returncode == 1
    assert "in one already" in refused.stderr
    with pytest.raises(subprocess.CalledProcessError) as not_running:
        first.edge("fleet", "show", "--set", "server.port=9")
    assert "does not answer at 127.0.0.1:9" in not_running.value.stderr
    assert "alone again" in second.edge("fleet", "leave")
    with pytest.raises(subprocess.CalledProcessError) as in_none:
        second.edge("fleet", "show")
    assert "this box is in none" in in_none.value.stderr


def test_a_box_that_leaves_keeps_nothing_of_the_stream_and_does_not_while_its_server_runs(tmp_path: Path) -> None:
    box = Service(tmp_path / "a")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        box.edge("fleet", "init", "--servers", f"127.0.0.1:{port}", "--own", "127.0.0.1")
        kept = box.folder / "fleet" / "store" / "message"
        kept.parent.mkdir()
        kept.write_bytes(b"somebody's vector")
        with pytest.raises(subprocess.CalledProcessError) as refused:
            box.edge("fleet", "leave")
        assert "edge-nats: still runs here" in refused.value.stderr
        assert kept.exists() and "alone" not in refused.value.stdout
    box.edge("fleet", "leave")
    assert not (box.folder / "fleet").exists()
