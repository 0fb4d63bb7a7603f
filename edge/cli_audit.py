"""The verb `edge audit`, and what the audit log keeps of the other verbs."""

from __future__ import annotations

import argparse
import contextlib
import datetime
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edge import assembly
from edge.config import Config
from edge.errors import Refusal, invalid
from edge.gallery.audit import Audit
from edge.types import Act, Actor, ActOutcome
from edge.web.values import UUID

log = logging.getLogger(__name__)

EXIT_DONE = 0
PAGE = 1000


def add_parsers(verbs: Any, common: argparse.ArgumentParser) -> None:
    """Add the verb to the command's."""
    shown = verbs.add_parser("audit", parents=[common], help="print who changed, erased or exported what, by ids")
    shown.add_argument("--limit", type=int, default=100, metavar="N", help="entries, the latest first (default: 100)")
    shown.add_argument("--action", metavar="ROUTE|VERB", help="only this: /person/delete, 'edge token create'")
    shown.add_argument("--caller", metavar="ID", help="only by the token or user of this id")
    shown.add_argument("--id", metavar="ID", help="only about the person, list, source, token or user of this id")
    shown.set_defaults(run=_audit)


def _audit(settings: Config, options: argparse.Namespace) -> int:
    for name in ("caller", "id"):
        given = getattr(options, name)
        if given is not None and not UUID.fullmatch(given):
            raise invalid(f"--{name}", f"'{given}' is no UUID")
    audit, left, cursor = assembly.open_audit(settings), max(0, options.limit), None
    while left:
        page = audit.page(
            action=options.action, caller_id=options.caller, id_=options.id, cursor=cursor, limit=min(left, PAGE)
        )
        for act in page.acts:
            print(_line(act))
        left, cursor = left - len(page.acts), page.cursor
        if cursor is None:
            break
    return EXIT_DONE


def _line(act: Act) -> str:
    moment = datetime.datetime.fromtimestamp(act.actor.time_ms / 1000, datetime.timezone.utc)
    who = " ".join(filter(None, (repr(act.actor.caller), act.actor.caller_id, act.actor.address)))
    about = " ".join(f"{name}={one}" for name, one in act.ids)
    parts = (f"{moment:%Y-%m-%dT%H:%M:%SZ}", act.actor.action, act.outcome.value, f"by {who}", about, act.detail)
    return "  ".join(filter(None, parts))


@contextlib.contextmanager
def kept(settings: Config, options: argparse.Namespace) -> Iterator[None]:
    """Keep the verb in the audit log, if it is one that changes something: before it runs, and how it ended.

    The verb appends the ids that it is about to `options.ids`. A log that cannot be written is told, and stops nobody.
    """
    options.ids = []
    action: str | None = getattr(options, "audited", None)
    audit = _opened(settings, action)
    if audit is None or action is None:
        yield
        return
    actor = actor_of(settings, action)
    number = audit.begin(actor, detail=getattr(options, "detail", None) or "")
    outcome = ActOutcome.FAILED
    try:
        yield
        outcome = ActOutcome.DONE
    except Refusal:
        outcome = ActOutcome.REFUSED
        raise
    finally:
        audit.end(number, actor, outcome, tuple(options.ids))


def note(action: str, detail: str, *, folder: Path) -> None:
    """Keep what has been done to that data folder."""
    try:
        now_ms = assembly.now_ms()
        Audit(folder, now_ms=now_ms).note(actor_of(None, action), ActOutcome.DONE, detail=detail)
    except Refusal as error:
        log.error("not in the audit log (%s): %s %s", error, action, detail)


def _opened(settings: Config, action: str | None) -> Audit | None:
    if action is None or not settings.data.folder.exists():
        return None
    try:
        return assembly.open_audit(settings)
    except Refusal as error:
        log.error("not in the audit log (%s): %s", error, action)
        return None


def actor_of(settings: Config | None, action: str) -> Actor:
    """Return whoever runs this command: nothing better than the system's number of them is known."""
    by = f", by sudo of uid {os.environ['SUDO_UID']}" if os.environ.get("SUDO_UID", "").isdecimal() else ""
    time_ms = assembly.now_ms() if settings is None else assembly.open_access(settings).trusted_now(assembly.now_ms())
    return Actor(action, None, f"command line, uid {os.getuid()}{by}", "", time_ms)
