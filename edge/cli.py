"""The `edge` command: a verb for everything that an operator does."""

from __future__ import annotations

import argparse
import datetime
import getpass
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from edge import (
    __version__,
    assembly,
    bench,
    cli_audit,
    cli_backup,
    cli_doctor,
    cli_fleet,
    cli_models,
    cli_people,
    cli_tls,
    cli_watch,
    config,
    daemon,
    errors,
)
from edge.config import Config
from edge.errors import ConfigMistakes, Refusal, invalid
from edge.types import Scope, Token
from edge.web.values import uuid_text

EXIT_REFUSED = 1
EXIT_MISCONFIGURED = 78
"""EX_CONFIG of sysexits.h: systemd need not try again before a person has mended something."""

BENCH_MOST_SECONDS = 60
"""Of one measurement of `edge bench`; longer says nothing more."""

SECRET_NAMES = ("password", "secret", "key", "token")
"""A setting whose name ends in one of these is printed as stars."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; return the exit code."""
    options = _parser().parse_args(arguments)
    if hasattr(options, "diagnose"):  # whose settings may be what is wrong
        return int(options.diagnose(options))
    try:
        settings = config.load(options.config, flags=options.set)
        daemon.set_up_logging(settings)
        with cli_audit.kept(settings, options):
            code: int = options.run(settings, options)
        return code
    except Refusal as refusal:
        print(f"edge: {refusal.message}", file=sys.stderr)
        if refusal.mistakes:
            print(errors.sentences(refusal.mistakes), file=sys.stderr)
        return EXIT_MISCONFIGURED if isinstance(refusal, ConfigMistakes) else EXIT_REFUSED
    except OSError as error:
        print(f"edge: {error.strerror or error}{f': {error.filename}' if error.filename else ''}", file=sys.stderr)
        return EXIT_REFUSED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="edge", description="An offline face-recognition appliance.")
    parser.add_argument("--version", action="version", version=f"edge {__version__}")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--config", type=Path, metavar="FILE", help="the settings file (default: $EDGE_CONFIG)")
    common.add_argument(
        "--set", action="append", default=[], metavar="SECTION.NAME=VALUE", help="a setting, before all others"
    )
    verbs = parser.add_subparsers(required=True, metavar="VERB")

    serve = verbs.add_parser("serve", parents=[common], help="run the appliance until it is told to stop")
    serve.add_argument("--show-example", type=Path, metavar="PHOTO", help="print a curl line that posts this photo")
    serve.set_defaults(run=_serve)

    shown = verbs.add_parser("config", parents=[common], help="print the settings in force")
    shown.set_defaults(run=_config)

    token = verbs.add_parser("token", help="make, list and revoke permanent tokens")
    actions = token.add_subparsers(required=True, metavar="ACTION")
    _token_create_parser(actions.add_parser("create", parents=[common], help="make a token and print its secret, once"))
    actions.add_parser("list", parents=[common], help="list the tokens, never their secrets").set_defaults(
        run=_token_list
    )
    revoke = actions.add_parser("revoke", parents=[common], help="revoke a token: it is refused from now on")
    revoke.add_argument("id", help="the token's id, as `edge token list` prints it")
    revoke.set_defaults(run=_token_revoke, audited="edge token revoke")
    rotate = actions.add_parser(
        "rotate-key", parents=[common], help="let a new key sign temporary tokens and addresses"
    )
    rotate.add_argument("--now", action="store_true", help="end what older keys have signed, at once")
    rotate.set_defaults(run=_token_rotate_key, audited="edge token rotate-key")

    actions.add_parser(
        "set-clock", parents=[common], help="after a clock that was far ahead: judge tokens by the present time again"
    ).set_defaults(run=_token_set_clock, audited="edge token set-clock")

    user = verbs.add_parser("user", help="make, list and remove the users who may log in")
    actions = user.add_subparsers(required=True, metavar="ACTION")
    added = actions.add_parser("add", parents=[common], help="make a user; the password is asked for")
    added.add_argument("email", metavar="EMAIL", help="the address to log in with")
    added.add_argument(
        "--scope",
        action="append",
        choices=[scope.value for scope in Scope],
        help="what the user's tokens are good for; may be repeated (default: everything)",
    )
    added.set_defaults(run=_user_add, audited="edge user add")
    actions.add_parser("list", parents=[common], help="list the users").set_defaults(run=_user_list)
    removed = actions.add_parser("remove", parents=[common], help="remove a user; their tokens are refused from now on")
    removed.add_argument("email", metavar="EMAIL", help="the address, as `edge user list` prints it")
    removed.set_defaults(run=_user_remove, audited="edge user remove")

    cli_models.add_parsers(verbs, common)
    cli_backup.add_parsers(verbs, common)
    cli_audit.add_parsers(verbs, common)
    cli_doctor.add_parsers(verbs, common)
    cli_tls.add_parsers(verbs, common)
    cli_fleet.add_parsers(verbs, common)
    cli_people.add_parsers(verbs, common)
    cli_watch.add_parsers(verbs, common)

    measured = verbs.add_parser("bench", parents=[common], help="measure what a frame costs on this machine")
    measured.add_argument("--picture", type=Path, metavar="FILE", help="a photo with a face to make frames of")
    measured.add_argument(
        "--seconds", type=float, default=0.8, help="for one of some twenty measurements (default: 0.8)"
    )
    measured.set_defaults(run=_bench)
    return parser


def _token_create_parser(create: argparse.ArgumentParser) -> None:
    scopes = [scope.value for scope in Scope]
    create.add_argument("--name", required=True, help="whose it is: the camera at the door")
    create.add_argument(
        "--scope", action="append", required=True, choices=scopes, help="what it is good for; may be repeated"
    )
    create.add_argument("--list", metavar="LIST_ID", help="bind it to one list")
    create.add_argument("--source", metavar="SOURCE_ID", help="bind it to one source")
    create.add_argument("--expires", default="never", metavar="WHEN", help="a date (2027-01-31), days (90) or never")
    create.add_argument("--quiet", action="store_true", help="print the secret alone")
    create.set_defaults(run=_token_create, audited="edge token create")


def _serve(settings: Config, options: argparse.Namespace) -> int:
    urls = []

    def ready(url: str) -> None:
        urls.append(url)
        print(f"edge {__version__} is ready on {url}", flush=True)
        if options.show_example:
            print(_example(url, settings.data.folder.resolve(), options.show_example.resolve()), flush=True)

    code = daemon.serve(settings, ready=ready)
    if code == daemon.START_AGAIN:
        _start_again(urls[-1])
    return code


def _start_again(url: str) -> None:
    """Become the same program anew: same process, same port, nothing left of the old pack in memory."""
    port = url.rpartition(":")[2]
    arguments = [sys.executable, *sys.orig_argv[1:], "--set", f"server.port={port}"]
    os.execv(sys.executable, arguments)  # noqa: S606 (no shell is wanted)


def _example(url: str, folder: Path, photo: Path) -> str:
    """Return a line to paste: the token stays in its file, out of the terminal and its history."""
    token = folder / "camera.token"
    return (
        f"The page is at {url}/: sign in with the token in {folder / 'admin.token'}, or as a user (edge user add).\n"
        "Try it in another terminal:\n\n"
        f'  curl -H "Authorization: Bearer $(cat {shlex.quote(str(token))})" \\\n'
        f"       -F image=@{shlex.quote(str(photo))} {url}/v1/person/create\n\n"
        "The first time it answers 200 with the person it has added: persons_new is 1. The second time it knows the\n"
        "person and answers 201, which says that nothing was added: persons_new is 0 and matches holds the person.\n"
        "Ctrl-C stops it."
    )


def _config(settings: Config, _options: argparse.Namespace) -> int:
    section = ""
    for name in config.names():
        heading, _dot, key = name.partition(".")
        if heading != section:
            print(f"{'' if not section else chr(10)}[{heading}]")
            section = heading
        text = settings.texts[name]
        masked = "********" if text and key.endswith(SECRET_NAMES) else text
        print(f"{key} = {masked}".rstrip())
    return 0


def _token_create(settings: Config, options: argparse.Namespace) -> int:
    access = assembly.open_access(settings)
    token, secret = access.create_token(
        options.name,
        frozenset(Scope(scope) for scope in options.scope),
        _uuid(options.list, "--list"),
        _uuid(options.source, "--source"),
        _expiry_ms(options.expires),
        now_ms=assembly.now_ms(),
    )
    options.ids.append(("token_id", token.token_id))
    if options.quiet:
        print(secret)
    else:
        print(f"{secret}\n\nThis is the only time it is shown. Its id, for `edge token revoke`, is {token.token_id}.")
    return 0


def _token_list(settings: Config, _: argparse.Namespace) -> int:
    rows: list[tuple[str, ...]] = [("id", "name", "scope", "list", "source", "created", "expires", "last used")]
    rows += [_token_row(token) for token in assembly.open_access(settings).tokens()]
    _print_table(rows)
    return 0


def _print_table(rows: Sequence[tuple[str, ...]]) -> None:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _token_row(token: Token) -> tuple[str, ...]:
    return (
        token.token_id,
        token.name,
        "+".join(sorted(scope.value for scope in token.scopes)),
        token.list_id or "any",
        token.source_id or "any",
        _day(token.created_ms),
        "never" if token.expires_ms is None else _day(token.expires_ms),
        "never" if token.last_used_ms is None else _day(token.last_used_ms),
    )


def _token_revoke(settings: Config, options: argparse.Namespace) -> int:
    if not assembly.open_access(settings).revoke(options.id):
        raise invalid("id", f"no token {options.id}; `edge token list` shows them")
    options.ids.append(("token_id", options.id))
    print("revoked")
    return 0


def _token_set_clock(settings: Config, _: argparse.Namespace) -> int:
    assembly.set_clock(settings)
    print("tokens are judged by the present time")
    return 0


def _token_rotate_key(settings: Config, options: argparse.Namespace) -> int:
    daemon.rotate_key(settings, at_once=options.now)
    print("a new key signs; " + ("what older ones signed has ended" if options.now else "older ones end by themselves"))
    return 0


def _user_add(settings: Config, options: argparse.Namespace) -> int:
    access = assembly.open_access(settings)
    scopes = frozenset(Scope(scope) for scope in options.scope or [scope.value for scope in Scope])
    user = access.add_user(options.email, _password(), scopes, now_ms=assembly.now_ms())
    options.ids.append(("user_id", user.user_id))
    print(f"{options.email} may log in now")
    return 0


def _password() -> str:
    """Return a password: asked for twice and not shown, or where nobody can be asked, a line of standard input."""
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\n")
    password = getpass.getpass("Password: ")
    if getpass.getpass("The same again: ") != password:
        raise invalid("password", "the two were not the same")
    return password


def _user_list(settings: Config, _: argparse.Namespace) -> int:
    rows: list[tuple[str, ...]] = [("email", "scope", "created", "password set", "id")]
    rows += [
        (
            user.email,
            "+".join(sorted(scope.value for scope in user.scopes)),
            _day(user.created_ms),
            _day(user.password_ms),
            user.user_id,
        )
        for user in assembly.open_access(settings).users()
    ]
    _print_table(rows)
    return 0


def _user_remove(settings: Config, options: argparse.Namespace) -> int:
    access = assembly.open_access(settings)
    there = {user.user_id for user in access.users()}
    if not access.remove_user(options.email):
        raise invalid("email", f"no user {options.email}; `edge user list` shows them")
    options.ids.extend(("user_id", one) for one in there - {user.user_id for user in access.users()})
    print("removed")
    return 0


def _day(milliseconds: int) -> str:
    return f"{datetime.datetime.fromtimestamp(milliseconds / 1000, datetime.timezone.utc):%Y-%m-%d}"


def _bench(settings: Config, options: argparse.Namespace) -> int:
    if not 0 < options.seconds <= BENCH_MOST_SECONDS:
        raise invalid("--seconds", f"must be over 0, up to {BENCH_MOST_SECONDS}")
    bench.end_tidily()
    print(bench.machine(settings), flush=True)
    for name, *values in bench.run(settings, options.picture, options.seconds):
        print(f"{name:32}" + "".join(f"{value:>12}" for value in values), flush=True)
    return 0


def _uuid(text: str | None, name: str) -> str | None:
    if text is None:
        return None
    try:
        return uuid_text(text)
    except ValueError as error:
        raise invalid(name, str(error)) from None


def _expiry_ms(text: str) -> int | None:
    """Return the end of a token: None for `never`; days from now; or the start of a day, UTC."""
    if text == "never":
        return None
    now = assembly.now_ms()
    try:
        if text.isdecimal():
            return now + int(text) * assembly.SECONDS_A_DAY * 1000
        moment = datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        raise invalid("--expires", f"'{text}' is not a date (2027-01-31), a number of days (90), or never") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.timezone.utc)
    expires = int(moment.timestamp() * 1000)
    if expires <= now:
        raise invalid("--expires", f"{text} is past")
    return expires
