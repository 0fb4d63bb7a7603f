"""The verb `edge fleet`: begin one, join one, look at one, leave it."""

from __future__ import annotations

import argparse
import http.client
import json
import sys
from collections.abc import Mapping
from typing import Any

from edge import assembly, doctor
from edge.config import Config
from edge.errors import Mistake, Unusable
from edge.fleet import code, membership
from edge.fleet.code import Membership
from edge.gallery import replica
from edge.tls import own_names

EXIT_DONE = 0

OWN_HELP = "which of the fleet's servers is this box (default: the one whose host is a name or address of it)"


def add_parsers(verbs: Any, common: argparse.ArgumentParser) -> None:
    """Add the verb to the command's."""
    fleet = verbs.add_parser("fleet", help="share one gallery with other boxes (docs/fleet.md)")
    actions = fleet.add_subparsers(required=True, metavar="ACTION")
    begun = actions.add_parser("init", parents=[common], help="begin a fleet with what this box holds")
    begun.add_argument(
        "--servers",
        nargs="+",
        default=[],
        metavar="ADDRESS",
        help="the boxes whose NATS servers keep the stream: one, or three (default: the site's own, fleet.servers)",
    )
    begun.add_argument("--own", metavar="ADDRESS", help=OWN_HELP)
    begun.set_defaults(run=_init, audited="edge fleet init")
    joined = actions.add_parser("join", parents=[common], help="join the fleet of a code")
    joined.add_argument("code", metavar="CODE", help="as `edge fleet init` printed it; - reads it from standard input")
    joined.add_argument("--own", metavar="ADDRESS", help=OWN_HELP)
    joined.set_defaults(run=_join, audited="edge fleet join")
    shown = actions.add_parser("show", parents=[common], help="show how the fleet is, as this box sees it")
    shown.add_argument("--json", action="store_true", help="print what GET /health says of it")
    shown.set_defaults(run=_show)
    actions.add_parser("code", parents=[common], help="print the code again").set_defaults(run=_code)
    left = actions.add_parser("leave", parents=[common], help="be alone again, with what this box holds")
    left.set_defaults(run=_leave, audited="edge fleet leave")


def _init(settings: Config, options: argparse.Namespace) -> int:
    _check_alone(settings)
    if not options.servers and not settings.fleet.servers:
        raise Unusable(Mistake("--servers", "name them, or set fleet.servers to the site's own NATS"))
    servers = code.addresses(options.servers)  # refused before anything is changed
    main_list_id = replica.join(settings.data.folder, None, settings.gallery.main_list_name)
    made = code.new(main_list_id, servers)
    _keep(settings, made, options.own)
    print("The fleet has begun with what this box holds. On each other box, with its service stopped:\n")
    print(f"    edge fleet join {made.code}\n")
    print("The code lets whoever has it read and change the shared gallery: keep it like a password.")
    return EXIT_DONE


def _join(settings: Config, options: argparse.Namespace) -> int:
    text = sys.stdin.read() if options.code == "-" else options.code
    found = code.read(text)
    _check_alone(settings)
    if not found.servers and not settings.fleet.servers:
        raise Unusable(Mistake("fleet.servers", "the fleet's server is the site's own: set its address first"))
    before = replica.main_list_id(settings.data.folder)
    replica.join(settings.data.folder, found.main_list_id, settings.gallery.main_list_name)
    if before is not None:
        assembly.open_access(settings).follow_list(before, found.main_list_id)
    _keep(settings, found, options.own)
    print("Joined: the next start takes over what the others hold, and gives them what only this box knows.")
    return EXIT_DONE


def _check_alone(settings: Config) -> None:
    assembly.make_data_folder(settings.data.folder)
    if membership.load(settings.data.folder) is not None:
        raise Unusable(Mistake("fleet", "this box is in one already: `edge fleet leave` first"))


def _keep(settings: Config, found: Membership, named: str | None) -> None:
    membership.save(settings.data.folder, found)
    own = membership.own_server(found, own_names() if named is None else [named])
    if own is None:
        if found.servers:
            print(f"This box keeps no part of the stream: it reaches {', '.join(found.servers)}.")
        return
    file = membership.save_server(settings.data.folder, found, own, stream_megabytes=settings.fleet.stream_megabytes)
    print(f"This box keeps the stream, as {own}: systemctl enable --now edge-nats ({file})")


def _show(settings: Config, options: argparse.Namespace) -> int:
    if membership.load(settings.data.folder) is None:
        raise Unusable(Mistake("fleet", "this box is in none"))
    try:
        told = doctor.health_of(settings.server.host, settings.server.port).get("fleet")
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = f"does not answer at {settings.server.host}:{settings.server.port}: systemctl start edge"
        raise Unusable(Mistake("service", reason)) from error
    if told is None:
        raise Unusable(Mistake("service", "was started before this box joined: systemctl restart edge"))
    if options.json:
        print(json.dumps(told, ensure_ascii=False, indent=1))
    else:
        print("\n".join(_lines(told)))
    return EXIT_DONE


def _lines(told: Mapping[str, Any]) -> list[str]:
    """Return a line for this box and one for each other."""
    link = "connected" if told["connected"] else "the fleet is not reached: it goes on alone"
    place = "not seeded yet" if told["position"] is None else f"at operation {told['position']}"
    held = "nothing compared yet"
    if told["agrees"] is not None:
        held = f"{told['digest'][:8]} held, " + ("as by the others" if told["agrees"] else "which others hold not")
    lines = [f"{told['box']} (this box): {link}; {place}, {told['outbox']} to tell; {held}"]
    for peer in told["peers"]:
        heard = f"heard {peer['heard_seconds_ago']:.0f} s ago" + (", silent" if peer["silent"] else "")
        behind = "not seeded yet" if peer["behind"] is None else f"{peer['behind']} operations behind"
        pack = "" if peer["same_pack"] else f"; another pack, {peer['pack']}"
        lines.append(f"{peer['box']}: {heard}; {behind}, {peer['outbox']} to tell{pack}")
    return lines


def _code(settings: Config, options: argparse.Namespace) -> int:
    found = membership.load(settings.data.folder)
    if found is None:
        raise Unusable(Mistake("fleet", "this box is in none"))
    print(found.code)
    return EXIT_DONE


def _leave(settings: Config, options: argparse.Namespace) -> int:
    membership.check_server_stopped(settings.data.folder)
    unheard = replica.leave(settings.data.folder)
    membership.forget(settings.data.folder)
    print("This box is alone again, and keeps whom it knows; what it kept of the stream is deleted.")
    if unheard:
        print(f"{unheard} changes of this box had not been published: the others never hear of them.")
    return EXIT_DONE
