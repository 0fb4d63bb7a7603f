"""Who knocks with wrong tokens is told to wait, and delays nobody else."""

from __future__ import annotations

from pathlib import Path

import pytest
import requests
from requests.adapters import HTTPAdapter

from tests.real_process import Service


class From(HTTPAdapter):
    """Connects from another of this machine's own addresses."""

    def __init__(self, address: str) -> None:
        self.address = address
        super().__init__()

    def init_poolmanager(self, *arguments: object, **more: object) -> None:
        super().init_poolmanager(*arguments, source_address=(self.address, 0), **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("how", ["header", "body"])
def test_wrong_tokens_lead_to_429_for_their_address_alone(tmp_path: Path, how: str) -> None:
    service = Service(tmp_path / "data", "server.wrong_tokens_per_minute=20").start()
    try:
        camera = service.camera

        def knock(address: str, token: str) -> requests.Response:
            with requests.Session() as session:
                session.mount("http://", From(address))
                url, content = f"{service.url}/v1/persons", {"limit": 1}
                if how == "header":
                    return session.post(url, json=content, headers={"token": token}, timeout=30)
                return session.post(url, json={**content, "token": token}, timeout=30)

        for _ in range(20):
            assert knock("127.0.0.1", "wrong").status_code == 401
        refused = knock("127.0.0.1", "wrong")
        assert refused.status_code == 429
        assert int(refused.headers["Retry-After"]) >= 1
        assert refused.json()["message"] == "too many attempts"
        assert refused.json()["errors"][0]["field"] == "token"
        read = service.token("read")
        assert knock("127.0.0.1", read).status_code == 200, "a good token from the same address"
        assert knock("127.0.0.1", camera).status_code == 403
        assert knock("127.0.0.2", "wrong").status_code == 401, "another address"
    finally:
        assert service.end() == 0
