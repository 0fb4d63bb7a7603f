"""The verb `edge tls`: the certificate of the TLS proxy before edge."""

from __future__ import annotations

import argparse
import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edge.config import Config
from edge.errors import Unusable
from edge.tls import RENEW_DAYS, Shown, Tls, own_names

EXIT_DONE, EXIT_NOT_DUE = 0, 1


def add_parsers(verbs: Any, common: argparse.ArgumentParser) -> None:
    """Add the verb to the command's."""
    tls = verbs.add_parser("tls", help="make, renew, bring and show the certificate of the TLS proxy")
    actions = tls.add_subparsers(required=True, metavar="ACTION")
    made = actions.add_parser("init", parents=[common], help="make a CA of this box and a certificate of it")
    made.add_argument("--anew", action="store_true", help="though there is one: every client must be given the new CA")
    made.set_defaults(run=_init, audited="edge tls init")
    renewed = actions.add_parser("renew", parents=[common], help="make a new certificate if one is due")
    renewed.add_argument("--check", action="store_true", help="only say whether one is due, by exit code 0")
    renewed.set_defaults(run=_renew)
    used = actions.add_parser("use", parents=[common], help="take your own certificate and key")
    used.add_argument("certificate", type=Path, metavar="CERT", help="PEM: the server's, then those up to its CA")
    used.add_argument("key", type=Path, metavar="KEY", help="PEM, not encrypted")
    used.set_defaults(run=_use, audited="edge tls use")
    shown = actions.add_parser("show", parents=[common], help="show names, end and fingerprints")
    shown.add_argument("--ca", action="store_true", help="print the CA's certificate, for the clients")
    shown.set_defaults(run=_show)


def _tls(settings: Config) -> Tls:
    return Tls(settings.tls.folder, settings.tls.pem)


def _names(settings: Config, own: Sequence[str]) -> list[str]:
    return list(dict.fromkeys([*own, *settings.tls.names.split()]))


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.timezone.utc)


def _init(settings: Config, options: argparse.Namespace) -> int:
    _print(settings, _tls(settings).init(_names(settings, own_names()), _now(), anew=options.anew))
    print(
        "\nGive each client the CA's certificate (`edge tls show --ca > edge-ca.pem`) as one that it trusts, and"
        "\ncompare the CA's fingerprint there: a browser's or system's certificate store, a camera's page for"
        "\ncertificates, `curl --cacert edge-ca.pem`. It may vouch for this box's names and private addresses alone;"
        "\nits key stays here. Then: systemctl reload haproxy; systemctl enable --now edge-tls.timer, which renews"
        f"\nthe certificate {RENEW_DAYS} days before its end."
    )
    return EXIT_DONE


def _renew(settings: Config, options: argparse.Namespace) -> int:
    tls, now = _tls(settings), _now()
    # a name that is set and that the CA may not vouch for is a mistake; an address that the box has by chance is not
    names = _names(settings, tls.permitted(own_names()) if tls.ca.exists() else [])
    if options.check:
        try:
            why = tls.due(names, now)
        except Unusable as unusable:  # the run that follows fails of it, and is seen to
            why = f"cannot be judged ({unusable})"
        print("the certificate " + (f"{why}: one is due" if why else "is good"))
        return EXIT_NOT_DUE if why is None else EXIT_DONE
    renewed = tls.renew(names, now)
    if renewed is None:
        print("the certificate is good: nothing was done")
    else:
        _print(settings, renewed)
        print("The proxy reads it when it is told to: systemctl reload haproxy (edge-tls.service does so).")
    return EXIT_DONE


def _use(settings: Config, options: argparse.Namespace) -> int:
    _print(settings, _tls(settings).use(options.certificate, options.key, _now()))
    print(f"Nobody but you renews it: edge-tls.service fails, and says so, in its last {RENEW_DAYS} days.")
    return EXIT_DONE


def _show(settings: Config, options: argparse.Namespace) -> int:
    tls = _tls(settings)
    shown = tls.shown()
    if options.ca and shown.ca_fingerprint is not None:
        print(tls.ca.read_text(), end="")
    elif options.ca:
        print("The certificate is your own, so its CA is not here.")
        return EXIT_NOT_DUE
    else:
        _print(settings, shown)
    return EXIT_DONE


def _print(settings: Config, shown: Shown) -> None:
    print(f"certificate   {settings.tls.pem}")
    print(f"  names       {', '.join(shown.names)}")
    print(f"  ends        {shown.ends:%Y-%m-%d}, in {shown.days_left(_now())} days")
    print(f"  SHA-256     {shown.fingerprint}")
    print(f"CA            {settings.tls.folder / 'ca.pem' if shown.ca_fingerprint else 'not of this box'}")
    if shown.ca_fingerprint:
        print(f"  SHA-256     {shown.ca_fingerprint}")
