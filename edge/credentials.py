"""Files that settings name and nobody else may read, or whose certificates are trusted."""

from __future__ import annotations

import os
import ssl
import stat
from pathlib import Path

from edge.errors import Mistake, Unusable


def secret(path: Path, setting: str) -> bytes:
    """Return what the file holds, without the line's end. A name alone is a credential that systemd hands over.

    Raises Unusable where it cannot be read, or where others can.
    """
    folder = os.environ.get("CREDENTIALS_DIRECTORY", "")
    is_credential = bool(folder) and len(path.parts) == 1
    path = Path(folder) / path if is_credential else path
    try:
        if not is_credential and path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise Unusable(Mistake(setting, f"{path} is for others to read: chmod 600"))
        return path.read_bytes().strip()
    except OSError as error:
        raise Unusable(Mistake(setting, f"{path} cannot be read: {error.strerror}")) from None


def trusted(path: Path | None, setting: str) -> Path | None:
    """Return the file of certificates as it was given. Raises Unusable where there are none in it."""
    try:
        if path is not None:
            ssl.create_default_context(cafile=str(path))
    except OSError as error:  # an ssl.SSLError is one
        reason = "holds no certificate" if isinstance(error, ssl.SSLError) else f"cannot be read: {error.strerror}"
        raise Unusable(Mistake(setting, f"{path} {reason}")) from None
    return path
