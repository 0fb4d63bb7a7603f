"""`edge doctor`, beside the real process and of boards as the kernel shows them."""

from __future__ import annotations

import json
import os
import re
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from real_process import Service

from edge import config, doctor, doctor_machine
from edge.doctor_machine import Level

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the files of Linux")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    running = Service(tmp_path_factory.mktemp("doctor") / "data").start()
    yield running
    running.end()


def examined(service: Service, *flags: str) -> tuple[int, dict[str, dict[str, Any]], str]:
    """Return the exit code, the findings by what was looked at, and all that was printed."""
    command = [sys.executable, "-m", "edge", "doctor", "--json", "--set", f"tls.pem={service.folder.parent / 'no.pem'}"]
    command += [part for flag in flags for part in ("--set", flag)]
    done = subprocess.run(command, env=service.environment(), capture_output=True, text=True, check=False)
    answer = json.loads(done.stdout)
    assert "Traceback" not in done.stderr
    assert done.returncode == {"ok": 0, "warn": 1, "fail": 2}[answer["level"]]
    assert all(one["advice"] for one in answer["findings"] if one["level"] != "ok"), "each says what to do"
    return done.returncode, {one["check"]: one for one in answer["findings"]}, done.stdout


def of(service: Service, *flags: str) -> config.Config:
    return config.load(
        Path(os.devnull),
        environment=service.environment(),
        flags=[f"tls.pem={service.folder.parent / 'no.pem'}", *flags],
    )


def checks(settings: config.Config) -> dict[str, doctor_machine.Finding]:
    """Return what is found of the data folder and the port, where several may be of one check the worst."""
    found = [*doctor._data(settings), doctor._port(settings)[1], doctor._backup(settings)]
    return {one.check: one for one in sorted(found, key=lambda one: list(Level).index(one.level))}


def port_of(service: Service) -> int:
    return int(service.url.rpartition(":")[2])


def test_a_box_that_runs_is_well_but_for_its_backup(service: Service) -> None:
    before = {path: path.stat().st_mtime_ns for path in service.folder.iterdir() if path.is_file()}
    code, found, text = examined(service, f"server.port={port_of(service)}")
    for check in ("settings", "interpreter", "models", "data", "secrets", "port", "gallery", "clock", "certificate"):
        assert found[check]["level"] == "ok", found[check]
    assert "answers, with pack default-1" in found["port"]["message"]
    assert found["backup"]["level"] == "warn"
    assert "edge-backup.timer" in found["backup"]["advice"]
    assert code >= 1
    assert not re.search(r"[0-9A-Za-z_-]{32}", text), "no key and no token"
    after = {path: path.stat().st_mtime_ns for path in service.folder.iterdir() if path.is_file()}
    assert after == before, "it changes nothing"


def test_settings_with_mistakes_are_a_finding_too(service: Service) -> None:
    code, found, _ = examined(service, "server.port=x")
    assert code == 2
    assert list(found) == ["settings"]
    assert "0 to 65535" in found["settings"]["message"]


def test_a_pack_that_is_not_there(service: Service) -> None:
    code, found, _ = examined(service, "models.pack=nowhere", "server.port=0")
    assert code == 2
    assert "nowhere" in found["models"]["message"]


@pytest.mark.parametrize("name", ["", "keys.json", "access.sqlite3", "gallery.sqlite3"])
def test_what_others_may_read(service: Service, name: str) -> None:
    path = service.folder / name
    mode = path.stat().st_mode & 0o777
    path.chmod(mode | 0o040)
    try:
        found = checks(of(service, "server.port=0"))["secrets" if name else "data"]
    finally:
        path.chmod(mode)
    assert found.level is Level.FAIL
    assert found.advice.startswith("chmod")
    assert checks(of(service, "server.port=0"))["secrets"].level is Level.OK


def test_a_full_disk(service: Service) -> None:
    found = checks(of(service, "server.port=0", "data.reserve_megabytes=1000000"))["disk"]
    assert found.level is Level.FAIL, "no disk of a test has a terabyte free"


class _Other(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        self.rfile.readline()
        self.wfile.write(b"HTTP/1.0 200 OK\r\nContent-Type: text/html\r\n\r\n<html>a printer")


def test_a_port_that_is_free_and_one_that_another_program_has(service: Service) -> None:
    with socketserver.TCPServer(("127.0.0.1", 0), _Other) as other:
        port = other.server_address[1]
        thread = threading.Thread(target=other.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        found = checks(of(service, f"server.port={port}"))["port"]
        other.shutdown()
        thread.join()
    assert found.level is Level.FAIL
    assert "not edge" in found.message
    free = checks(of(service, f"server.port={port}"))["port"]
    assert (free.level, free.message) == (Level.OK, f"{port} is free: no service runs")


def test_the_age_of_the_last_backup(service: Service) -> None:
    service.edge("backup", "--auto")
    assert checks(of(service, "server.port=0"))["backup"].level is Level.OK
    (made,) = (service.folder / "backups").glob("*.tar")
    aged = time.time() - 5 * 86_400
    os.utime(made, (aged, aged))
    found = checks(of(service, "server.port=0"))["backup"]
    made.unlink()
    assert (found.level, found.message) == (Level.WARN, "1, the last 5 days ago")


def test_a_clock_before_what_it_has_written(service: Service) -> None:
    settings = of(service, "server.port=0")
    assert doctor._clock(settings, None).level is Level.OK
    path = service.folder / "gallery.sqlite3"
    found = path.stat()
    os.utime(path, (time.time() + 86_400,) * 2)
    try:
        assert doctor._clock(settings, None).level is Level.FAIL
    finally:
        os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))


def test_a_certificate_that_nothing_renews(service: Service, tmp_path: Path) -> None:
    pem = tmp_path / "edge.pem"
    flags = (f"tls.folder={tmp_path / 'ca'}", f"tls.pem={pem}")
    service.edge("tls", "init", *(part for flag in flags for part in ("--set", flag)))
    assert doctor._certificate(of(service, *flags)).level is Level.OK
    pem.write_text("no certificate")
    broken = doctor._certificate(of(service, *flags))
    assert (broken.level, bool(broken.advice)) == (Level.FAIL, True)


# --- the machine, as the kernel's files show it ---


def board(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{text}\n")
    return root


@pytest.mark.parametrize(
    ("name", "driver", "level"),
    [
        ("ondemand", "cpufreq-dt", Level.OK),
        ("powersave", "cpufreq-dt", Level.WARN),
        ("powersave", "intel_pstate", Level.OK),
    ],
)
def test_the_governor(tmp_path: Path, name: str, driver: str, level: Level) -> None:
    folder = "sys/devices/system/cpu/cpu0/cpufreq"
    root = board(tmp_path, {f"{folder}/scaling_governor": name, f"{folder}/scaling_driver": driver})
    assert doctor_machine.governor(root).level is level


@pytest.mark.parametrize(("thousandths", "level"), [(45_000, Level.OK), (84_500, Level.WARN)])
def test_the_heat_of_the_hottest(tmp_path: Path, thousandths: int, level: Level) -> None:
    zone = "sys/class/thermal/thermal_zone{}/temp"
    root = board(tmp_path, {zone.format(0): "30000", zone.format(1): str(thousandths)})
    assert doctor_machine.temperature(root).level is level


@pytest.mark.parametrize(("running", "level"), [(False, Level.WARN), (True, Level.OK)])
def test_memory_to_start_with_and_to_go_on_with(tmp_path: Path, *, running: bool, level: Level) -> None:
    root = board(tmp_path, {"proc/meminfo": "MemTotal: 900000 kB\nMemAvailable: 200000 kB"})
    assert doctor_machine.memory(is_running=running, root=root).level is level


@pytest.mark.parametrize(
    ("kind", "level"), [("ext4", Level.OK), ("nfs4", Level.FAIL), ("vfat", Level.FAIL), ("tmpfs", Level.WARN)]
)
def test_the_file_system_is_that_of_the_nearest_mount(tmp_path: Path, kind: str, level: Level) -> None:
    lines = (
        f"1 0 8:1 / / rw - xfs /dev/a rw\n2 1 0:9 / {tmp_path} rw shared:1 - {kind} b rw\n3 1 0:9 / /no rw - cifs c rw"
    )
    root = board(tmp_path, {"proc/self/mountinfo": lines})
    assert doctor_machine.file_system(tmp_path / "not" / "there", root).level is level


def test_more_threads_than_cores() -> None:
    assert doctor_machine.cores(4, 4, 1).level is Level.OK
    assert doctor_machine.cores(4, 4, 2).level is Level.WARN
