"""How a box reaches its fleet: what the code says, or the settings for the site's own servers."""

from __future__ import annotations

import socket
import ssl

from edge.config import Config
from edge.credentials import secret, trusted
from edge.errors import Mistake, Unusable
from edge.fleet import membership
from edge.fleet.state import Terms
from edge.types import Pack

MEGABYTE = 1 << 20


def of(config: Config, pack: Pack) -> Terms:
    """Return the terms. Raises Unusable where the code or the password is missing."""
    fleet, folder = config.fleet, config.data.folder
    found = membership.load(folder)
    if found is None:
        reason = "the gallery is in a fleet, and the code is gone: `edge fleet leave`, then `edge fleet join CODE`"
        raise Unusable(Mistake(str(folder / membership.FOLDER / membership.CODE_NAME), reason))
    servers = tuple(fleet.servers.split())
    user, password = fleet.user, ""
    if fleet.password_file is not None:
        password = secret(fleet.password_file, "fleet.password_file").decode("utf-8", "replace")
    ca_file = trusted(fleet.ca_file, "fleet.ca_file")
    context: ssl.SSLContext | None = None if ca_file is None else membership.context(ca_file)
    if not servers:
        servers = tuple(f"tls://{server}" for server in found.servers)
        user, password = membership.USER, found.client_password
        context = membership.context(folder / membership.FOLDER / membership.CA_NAME)
    return Terms(
        servers=servers,
        user=user,
        password=password,
        tls=context,
        prefix=fleet.prefix,
        box=fleet.box_name or socket.gethostname(),
        pack=pack.id,
        digest_seconds=fleet.digest_seconds,
        stream_days=fleet.stream_days,
        stream_bytes=fleet.stream_megabytes * MEGABYTE,
        spool=folder,
    )
