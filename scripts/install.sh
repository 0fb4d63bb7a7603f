#!/bin/sh
# Installs edge as a service, or brings an installed one to this release: scripts/install.sh [options]
#
#   --offline FOLDER   take everything from a folder that scripts/bundle.sh has made; nothing is fetched
#   --fleet            with what a fleet needs (docs/fleet.md); a box that is in one keeps it anyway
#   --no-start         install and enable, but start nothing
#   --dry-run          print what would be done
#   --help             print this
#
# For Raspberry Pi OS (64 bit), Debian and Ubuntu, as root. Run again with a newer release beside it, it upgrades: a
# backup first, then the new release, and where that does not come up, the old one and its data again.
#
#   /opt/edge              the release in force: a link to /opt/edge-releases/VERSION
#   /etc/edge/edge.conf    your settings, never overwritten; /etc/edge/admin.token, the first token
#   /var/lib/edge          what it knows
set -eu

releases=/opt/edge-releases
link=/opt/edge
settings=/etc/edge/edge.conf
data=/var/lib/edge
token=/etc/edge/admin.token
needed_megabytes=1500 # the environment takes 700, its making as much again for a moment
start_seconds=90 # of a Pi with a large gallery, with room

source=$(cd "$(dirname "$0")/.." && pwd)
offline=
extra=
start=yes
dry=

usage() {
    sed -n '2,/^set -eu/{/^#/{s/^# \{0,1\}//;p;};}' "$0"
}

say() {
    echo "edge: $1"
}

fail() {
    echo "edge: $1" >&2
    exit 1
}

run() { # what changes the system
    if [ -n "$dry" ]; then
        echo "    $*"
    else
        "$@"
    fi
}

[ -e "$data/fleet/code" ] && extra="[fleet]" # a box that is in one stays in it
while [ $# -gt 0 ]; do
    case $1 in
        --offline)
            [ $# -gt 1 ] || fail "--offline needs the folder that scripts/bundle.sh has made"
            offline=$(cd "$2" 2>/dev/null && pwd) || fail "--offline: there is no folder $2"
            shift
            ;;
        --fleet) extra="[fleet]" ;;
        --no-start) start= ;;
        --dry-run) dry=yes ;;
        -h | --help) usage && exit 0 ;;
        *) fail "$1 is no option; --help lists them" ;;
    esac
    shift
done

# --- what must be there ---

supported() {
    "$1" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null
}

check() {
    [ "$(id -u)" = 0 ] || [ -n "$dry" ] || fail "must be run as root: sudo $0"
    case $(uname -m) in
        x86_64 | aarch64 | arm64) ;;
        *) fail "this machine is $(uname -m); needed is a 64-bit system, x86_64 or aarch64" ;;
    esac
    command -v apt-get >/dev/null || fail "there is no apt-get: this is for Raspberry Pi OS, Debian and Ubuntu"
    free=$(df -Pm /opt | awk 'NR == 2 {print $4}')
    [ "$free" -ge "$needed_megabytes" ] || fail "/opt has $free MB free, $needed_megabytes are needed"
    if [ -n "$offline" ]; then
        [ -f "$offline/SHA256SUMS" ] || fail "$offline/SHA256SUMS is missing: scripts/bundle.sh makes such a folder"
        (cd "$offline" && sha256sum --quiet --check SHA256SUMS) || fail "$offline is not as it was made: copy it again"
    fi
}

packages() {
    wanted="python3 python3-venv"
    [ -n "$offline" ] || wanted="$wanted python3-dev g++" # hnswlib is compiled
    missing=
    for one in $wanted; do
        dpkg-query -W -f '${Status}' "$one" 2>/dev/null | grep -q 'ok installed' || missing="$missing $one"
    done
    [ -n "$missing" ] || return 0
    [ -z "$offline" ] || [ -n "$dry" ] || fail "missing here, and --offline fetches nothing:$missing"
    say "installing$missing"
    run apt-get update -qq
    # shellcheck disable=SC2086 # a list of names
    run env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing
}

# --- the parts ---

account() {
    getent passwd edge >/dev/null ||
        run useradd --system --user-group --home-dir "$data" --no-create-home --shell /usr/sbin/nologin edge
    run install -d -m 0700 -o edge -g edge "$data"
    run install -d -m 0755 -o root -g root /etc/edge
}

release() { # into $new; taken apart again where it fails half-way
    say "installing edge $version into $new (a minute or two, longer on a small board)"
    run rm -rf "$new"
    run install -d -m 0755 "$new"
    for one in setup.cfg pyproject.toml README.md LICENSE edge models systemd scripts docs; do
        [ -e "$source/$one" ] && run cp -R "$source/$one" "$new/"
    done
    run find "$new" -name __pycache__ -prune -exec rm -rf {} +
    run python3 -m venv "$new/.venv"
    if [ -n "$offline" ]; then
        run "$new/.venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-index \
            --find-links "$offline" --no-build-isolation setuptools wheel
        run "$new/.venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-index \
            --find-links "$offline" --no-build-isolation --editable "$new$extra"
    else
        # What the tests ran with, and nothing else: for Python 3.11 and later.
        if python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
            run "$new/.venv/bin/python" -m pip install --quiet --disable-pip-version-check \
                --require-hashes -r "$new/systemd/appliance.txt"
        fi
        run "$new/.venv/bin/python" -m pip install --quiet --disable-pip-version-check --editable "$new$extra"
    fi
    # Compiled now, as the service may write nothing here.
    run "$new/.venv/bin/python" -m compileall -q "$new/edge"
    run chmod -R go=u-w "$new"
    [ -n "$dry" ] || "$new/.venv/bin/edge" --version >/dev/null || fail "edge $version does not run on this machine"
}

as_edge() { # RELEASE VERB ...
    at=$1
    shift
    run env EDGE_DATA_FOLDER="$data" setpriv --reuid=edge --regid=edge --clear-groups \
        "$at/.venv/bin/edge" "$@" --config "$settings"
}

configure() {
    if [ ! -e "$settings" ]; then
        if [ -n "$dry" ]; then
            echo "    write $settings"
        else
            {
                echo "# What differs from $link/edge/default.conf, which explains every setting."
                echo "[server]"
                echo "# host = 0.0.0.0"
            } > "$settings.new"
            mv "$settings.new" "$settings"
        fi
    fi
    install_units "$source"
}

install_units() { # RELEASE
    for unit in "$1"/systemd/*.service "$1"/systemd/*.timer; do
        run install -m 0644 "$unit" "/etc/systemd/system/$(basename "$unit")"
    done
}

first_token() {
    [ -s "$token" ] && return
    if [ -n "$dry" ]; then
        echo "    write $token"
        return
    fi
    (umask 077 && as_edge "$link" token create --name admin --scope admin --quiet > "$token.new")
    mv "$token.new" "$token"
}

has_systemd() {
    [ -d /run/systemd/system ]
}

point() { # the link, in one step
    run ln -sfn "$1" "$link.new"
    run mv -T "$link.new" "$link"
}

address() {
    host=$("$link/.venv/bin/edge" config --config "$settings" | sed -n 's/^host = //p' | head -n 1)
    port=$("$link/.venv/bin/edge" config --config "$settings" | sed -n 's/^port = //p' | head -n 1)
    case $host in
        0.0.0.0 | ::) host=127.0.0.1 ;;
    esac
    echo "http://$host:$port"
}

answers() { # whether the service does within $start_seconds
    url=$(address)
    waited=0
    while [ $waited -lt $start_seconds ]; do
        "$link/.venv/bin/python" - "$url/health" <<'END' 2>/dev/null && return 0
import sys, urllib.request
urllib.request.urlopen(sys.argv[1], timeout=5).read()
END
        systemctl is-failed --quiet edge.service && return 1
        sleep 1
        waited=$((waited + 1))
    done
    return 1
}

# --- the two ways ---

begin() {
    point "$new"
    first_token
    run systemctl daemon-reload
    run systemctl enable --quiet edge.service edge-backup.timer
    [ -n "$start" ] || return 0
    run systemctl start edge.service edge-backup.timer
    [ -n "$dry" ] || answers || fail "the service does not answer: journalctl -u edge"
}

upgrade() {
    old=$(readlink -f "$link")
    # Of a service that runs: the database is copied while it goes on.
    kept=$data/backups/before-$version-$(date +%Y%m%d-%H%M%S).tar
    say "backing up into $kept"
    run install -d -m 0700 -o edge -g edge "$data/backups"
    as_edge "$old" backup "$kept"
    was_running=
    if systemctl is-active --quiet edge.service; then was_running=yes; fi
    run systemctl stop edge.service
    point "$new"
    first_token
    run systemctl daemon-reload
    if [ -z "$start$was_running" ]; then return 0; fi
    run systemctl start edge.service
    if [ -n "$dry" ] || answers; then
        say "the release before it stays in $old until the next upgrade"
        return 0
    fi
    say "edge $version does not come up; going back to $(basename "$old")"
    systemctl stop edge.service || true
    point "$old"
    install_units "$old"
    systemctl daemon-reload
    as_edge "$old" restore "$kept"
    systemctl reset-failed edge.service || true
    systemctl start edge.service
    answers || fail "neither release answers now; the data is whole in $kept: journalctl -u edge"
    rm -rf "$new"
    fail "edge $version was taken back, $(basename "$old") runs with its data as before: journalctl -u edge says why"
}

forget_older() { # all but this release and the one before it
    [ -d "$releases" ] || return 0
    for one in "$releases"/*; do
        case $one in
            "$new" | "${old:-$new}") ;;
            *) run rm -rf "$one" ;;
        esac
    done
}

check
packages
python3 -c 'pass' 2>/dev/null && { supported python3 || fail "$(python3 --version) is not Python 3.10 to 3.13"; }
version=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' "$source/edge/__init__.py")
new=$releases/$version-$(cd "$source" && cat setup.cfg edge/*.py edge/*/*.py models/*/pack.json | sha256sum | cut -c1-8)
account
if [ -z "$dry" ] && [ "$(readlink -f "$link")" = "$new" ] && [ -x "$new/.venv/bin/edge" ]; then
    say "edge $version is installed already"
else
    release
fi
if [ -L "$link" ] && [ "$(readlink -f "$link")" != "$new" ]; then
    configure
    if has_systemd; then upgrade; else point "$new"; fi
else
    configure
    if has_systemd; then begin; else
        point "$new"
        first_token
        run systemctl enable --quiet edge.service edge-backup.timer
    fi
fi
forget_older
[ -z "$dry" ] || exit 0
if has_systemd && [ -n "$start" ]; then
    say "edge $version runs and answers on $(address)"
else
    say "edge $version is installed and not started: systemctl start edge edge-backup.timer"
fi
say "the first token lies in $token; $link/.venv/bin/edge --help lists the verbs"
