"""`edge doctor` beside a real broker, a port that is dead, and webhooks that nobody signs."""

from __future__ import annotations

import datetime
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from broker import MOSQUITTO, PASSWD, Broker, free_port, until
from real_process import Service

from edge import config, doctor_events
from edge.doctor_machine import Finding, Level
from edge.tls import Tls

SECRET = "whsec_" + "QUFB" * 11


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    running = Service(tmp_path_factory.mktemp("doctor") / "data").start()
    yield running
    running.end()


def examined(service: Service, *flags: str) -> dict[str, dict[str, Any]]:
    """Return what the command finds, by what was looked at."""
    command = [sys.executable, "-m", "edge", "doctor", "--json"]
    command += [part for flag in flags for part in ("--set", flag)]
    done = subprocess.run(command, env=service.environment(), capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
    return {one["check"]: one for one in json.loads(done.stdout)["findings"]}


def broker_of(*flags: str) -> Finding:
    settings = config.load(Path(os.devnull), environment={}, flags=["mqtt.host=127.0.0.1", *flags])
    (found,) = doctor_events.broker(settings)
    return found


def written(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


@pytest.mark.skipif(MOSQUITTO is None, reason="no mosquitto here: apt-get install mosquitto")
def test_a_broker_with_a_password_and_a_certificate(tmp_path: Path, service: Service) -> None:
    pem, passwords = tmp_path / "edge.pem", tmp_path / "passwords"
    tls = Tls(tmp_path / "tls", pem)
    tls.init(["localhost", "127.0.0.1"], datetime.datetime.now(datetime.timezone.utc))
    subprocess.run([str(PASSWD), "-b", "-c", str(passwords), "edge", "right"], check=True, capture_output=True)
    passwords.chmod(0o644)
    right, wrong = written(tmp_path / "right", "right\n"), written(tmp_path / "wrong", "wrong\n")
    lines = (f"password_file {passwords}", f"certfile {pem}", f"keyfile {pem}", "user root")
    broker = Broker(tmp_path, *lines, anonymous=False)
    until(broker.is_up)
    known = [f"mqtt.port={broker.port}", "mqtt.tls=true", f"mqtt.ca_file={tls.ca}", "mqtt.username=edge"]
    try:
        found = examined(service, "mqtt.host=127.0.0.1", *known, f"mqtt.password_file={right}")["mqtt"]
        assert (found["level"], "by TLS" in found["message"]) == ("ok", True), found
        found = broker_of(*known, f"mqtt.password_file={wrong}")
        assert found.level is Level.FAIL and "refuses" in found.message and "password_file" in found.advice
        found = broker_of(*known, f"mqtt.password_file={right}", "mqtt.ca_file=")
        assert found.level is Level.FAIL and "ca_file" in found.advice
        found = broker_of(f"mqtt.port={broker.port}")
        assert found.level is Level.FAIL and "mqtt.tls" in found.advice
        right.chmod(0o644)
        found = broker_of(*known, f"mqtt.password_file={right}")
        assert found.level is Level.FAIL and "chmod 600" in found.message
        found = broker_of(*known[:2], f"mqtt.ca_file={tmp_path / 'none'}")
        assert found.level is Level.FAIL and "mqtt.ca_file" in found.message and "cannot be read" in found.message
        found = broker_of(*known[:2], f"mqtt.ca_file={wrong}")
        assert found.level is Level.FAIL and "holds no certificate" in found.message
    finally:
        broker.kill()


@pytest.mark.skipif(MOSQUITTO is None, reason="no mosquitto here: apt-get install mosquitto")
def test_tls_where_there_is_none(tmp_path: Path) -> None:
    broker = Broker(tmp_path)
    until(broker.is_up)
    try:
        assert broker_of(f"mqtt.port={broker.port}").level is Level.OK
        found = broker_of(f"mqtt.port={broker.port}", "mqtt.tls=true")
        assert found.level is not Level.OK and "mqtt.tls" in found.advice
    finally:
        broker.kill()


def test_a_dead_port_a_name_that_is_nowhere_and_no_broker_at_all(service: Service) -> None:
    port = free_port()
    found = examined(service, "mqtt.host=127.0.0.1", f"mqtt.port={port}", "webhooks.unknown_url=http://a.lan/x")
    assert found["mqtt"]["level"] == "warn"
    assert f"127.0.0.1:{port}" in found["mqtt"]["message"] and "mqtt.port" in found["mqtt"]["advice"]
    assert found["webhooks"]["level"] == "fail"
    assert "secret_file" in found["webhooks"]["advice"] and "a.lan" not in str(found["webhooks"])
    assert "mqtt.host" in broker_of("mqtt.host=nowhere.invalid").advice
    assert not list(doctor_events.broker(config.load(Path(os.devnull), environment={})))


def test_the_key_of_webhooks(tmp_path: Path) -> None:
    def found(text: str, mode: int) -> Finding:
        flags = [f"webhooks.secret_file={written(tmp_path / 'secret', text, mode)}"]
        settings = config.load(Path(os.devnull), environment={}, flags=flags)
        (one,) = doctor_events.webhooks(settings, is_running=False)
        return one

    assert found(SECRET, 0o600).level is Level.OK
    assert found(SECRET, 0o640).level is Level.FAIL
    assert found("whsec_short", 0o600).level is Level.FAIL
    assert SECRET not in str([found(SECRET, 0o600), found(SECRET, 0o640)])


def test_a_group_that_wants_a_webhook_which_nobody_signs(service: Service, tmp_path: Path) -> None:
    port = f"server.port={service.url.rpartition(':')[2]}"
    assert "webhooks" not in examined(service, port)
    headers = {"token": service.token("admin")}
    lists = service.session.post(f"{service.url}/v1/person/lists", headers=headers, timeout=30).json()
    alert = {"id": lists["lists"][0]["id"], "on_failed": {"url": "https://alarm.lan/secret"}}
    fields = {"name": "hall", "person_list_search": json.dumps([alert])}
    made = service.session.post(f"{service.url}/v1/source/group/create", data=fields, headers=headers, timeout=30)
    assert made.status_code == 200, made.text
    found = examined(service, port)["webhooks"]
    assert found["level"] == "fail" and "1 source group" in found["message"]
    assert "alarm.lan" not in str(found)
    secret = written(tmp_path / "secret", SECRET)
    assert examined(service, port, f"webhooks.secret_file={secret}")["webhooks"]["level"] == "ok"
