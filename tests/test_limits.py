"""Limits and keys that the settings give, asked of the real process."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from real_process import Service


class Sealed(Service):
    """The appliance with its signing keys as systemd hands them over."""

    credentials: Path

    def environment(self) -> dict[str, str]:
        return {**super().environment(), "CREDENTIALS_DIRECTORY": str(self.credentials)}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sealed]:
    folder = tmp_path_factory.mktemp("limits")
    made = Sealed(folder / "data", "server.max_body_parts=5", "server.max_field_kilobytes=2")
    made.credentials = folder / "credentials"
    made.credentials.mkdir()
    made.start()
    made.end()
    shutil.move(folder / "data" / "keys.json", made.credentials / "keys.json")
    (made.credentials / "keys.json").chmod(0o440)  # as systemd shows what it hands over
    made.settings = (*made.settings, "tokens.signing_keys=credential")
    yield made.start()
    assert made.end() == 0


def test_parts_of_a_form(service: Service) -> None:
    assert service.create(fields=[("other", "1")] * 5).json()["message"] == "no image attached"
    refused = service.create(fields=[("other", "1")] * 6)
    assert refused.status_code == 413 and "the limit is 5 parts" in refused.text


def test_the_length_of_a_field(service: Service) -> None:
    assert service.create(fields=[("fields", "x" * 2048)]).json()["message"] == "no image attached"
    refused = service.create(fields=[("fields", "x" * 2049)])
    assert refused.status_code == 413 and "longer than 2048 bytes" in refused.text


def test_keys_that_systemd_hands_over_sign_and_are_left_alone(service: Sealed, photos: dict[str, bytes]) -> None:
    address = service.create(photos["obama-1"]).json()["persons"][0]["image_url"]
    assert service.session.get(address, timeout=30).status_code == 200
    assert not (service.folder / "keys.json").exists(), "none is made beside them"
    with pytest.raises(subprocess.CalledProcessError) as refused:
        service.edge("token", "rotate-key", "--set", "tokens.signing_keys=credential")
    assert "are a credential of systemd" in refused.value.stderr


def test_without_the_credential_nothing_starts(service: Sealed) -> None:
    with pytest.raises(subprocess.CalledProcessError) as refused:
        environment = {**service.environment(), "CREDENTIALS_DIRECTORY": ""}
        data = service.folder.parent / "other"
        flags = ("--set", "tokens.signing_keys=credential", "--set", f"data.folder={data}")
        command = [sys.executable, "-m", "edge", "serve", *flags]
        subprocess.run(command, env=environment, check=True, capture_output=True, text=True, timeout=60)
    assert "systemd hands over none of the name keys.json" in refused.value.stderr
