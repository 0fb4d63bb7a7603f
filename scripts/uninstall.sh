#!/bin/sh
# Takes away what scripts/install.sh has installed: scripts/uninstall.sh [--purge [--yes]]
#
# The data (/var/lib/edge), the settings and the token stay, so that a later install goes on where it was. With --purge
# they go too: all faces, persons, keys and backups in that folder. --yes does not ask.
set -eu

fail() {
    echo "edge: $1" >&2
    exit 1
}

purge=
yes=
for option in "$@"; do
    case $option in
        --purge) purge=yes ;;
        --yes) yes=yes ;;
        -h | --help) sed -n '2,5s/^# \{0,1\}//p' "$0" && exit 0 ;;
        *) fail "$option is no option; --help lists them" ;;
    esac
done
[ "$(id -u)" = 0 ] || fail "must be run as root: sudo $0"
if [ -n "$purge" ] && [ -z "$yes" ]; then
    printf 'All persons, pictures, tokens and backups in /var/lib/edge will be gone for good. Type "erase" to go on: '
    read -r answer
    [ "$answer" = erase ] || fail "nothing was done"
fi

units=
for unit in "$(dirname "$0")"/../systemd/*.service "$(dirname "$0")"/../systemd/*.timer; do
    units="$units $(basename "$unit")"
done
if [ -d /run/systemd/system ]; then
    # shellcheck disable=SC2086 # a list of names
    systemctl disable --now --quiet $units 2>/dev/null || true
    systemctl stop --quiet 'edge-watch@*.service' 2>/dev/null || true
fi
for unit in $units; do
    rm -f "/etc/systemd/system/$unit" /etc/systemd/system/*.wants/"$unit"
done
rm -f /etc/systemd/system/*.wants/edge-watch@*.service
[ ! -d /run/systemd/system ] || systemctl daemon-reload
rm -rf /opt/edge-releases
[ ! -L /opt/edge ] || rm /opt/edge
if [ -n "$purge" ]; then
    rm -rf /var/lib/edge /etc/edge
    if getent passwd edge >/dev/null; then userdel edge; fi
    echo "edge: taken away, with all it knew"
else
    echo "edge: taken away; /var/lib/edge and /etc/edge are still there (--purge erases them)"
fi
