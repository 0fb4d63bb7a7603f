"""The appliance as its user meets it: a process of its own, over a real socket."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import requests

ROOT_OF_PHOTOS = Path(__file__).parent / "photos"

START_SECONDS = 60
"""A bound for a machine that does other things too, not a promise."""


class Service:
    """`edge serve` on a free port of 127.0.0.1, with a data folder of its own."""

    def __init__(self, folder: Path, *settings: str) -> None:
        self.folder = folder
        self.settings = settings
        self.program: Sequence[str] = ("-m", "edge")
        self.within: Sequence[str] = ()
        """A command that runs another: in a network of its own, say."""
        self.url = ""
        self.process: subprocess.Popen[str] | None = None
        self.session = requests.Session()

    # --- the process ---

    def environment(self) -> dict[str, str]:
        mine = {key: text for key, text in os.environ.items() if not key.startswith("EDGE_")}
        interpreter = os.environ.get("EDGE_MODELS_INTERPRETER", "auto")
        return {**mine, "EDGE_DATA_FOLDER": str(self.folder), "EDGE_MODELS_INTERPRETER": interpreter}

    def edge(self, *arguments: str) -> str:
        """Run another verb beside it and return what it prints."""
        command = [sys.executable, "-m", "edge", *arguments]
        return subprocess.run(command, env=self.environment(), check=True, capture_output=True, text=True).stdout

    def start(self) -> Service:
        flags = [flag for setting in ("server.port=0", *self.settings) for flag in ("--set", setting)]
        self.log = (self.folder.parent / f"{self.folder.name}.log").open("a")
        self.process = subprocess.Popen(
            [*self.within, sys.executable, *self.program, "serve", *flags],
            env=self.environment(),
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        found = re.search(r"ready on (http://\S+)", line)
        assert found, f"it did not start: {self.logged()}"
        self.url = found[1]
        return self

    def logged(self) -> str:
        return (self.folder.parent / f"{self.folder.name}.log").read_text()

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send the signal and return the exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        code = self.process.wait(timeout=30)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.log.close()
        self.session.close()
        self.session = requests.Session()
        self.process = None
        return code

    # --- tokens ---

    def token(self, *scopes: str, **bound: str) -> str:
        """Return the secret of a new permanent token."""
        arguments = [part for scope in scopes for part in ("--scope", scope)]
        arguments += [part for name, value in bound.items() for part in (f"--{name}", value)]
        return self.edge("token", "create", "--name", "test", "--quiet", *arguments).strip()

    # --- requests ---

    def create(
        self, image: bytes | None = None, token: str | None = None, fields: Sequence[tuple[str, str]] = (), **texts: Any
    ) -> requests.Response:
        """POST /v1/person/create as a form."""
        pairs: list[tuple[str, tuple[str | None, Any]]] = [(name, (None, str(text))) for name, text in texts.items()]
        pairs += [(name, (None, text)) for name, text in fields]
        if image is not None:
            pairs.append(("image", ("frame.jpg", image)))
        headers = {"Authorization": f"Bearer {token or self.camera}"}
        return self.session.post(f"{self.url}/v1/person/create", files=pairs, headers=headers, timeout=120)

    @property
    def camera(self) -> str:
        """A token that may enrol, made when it is first needed."""
        if not hasattr(self, "_camera"):
            self._camera = self.token("enrol")
        return self._camera
