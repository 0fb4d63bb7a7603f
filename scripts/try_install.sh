#!/bin/sh
# Tries install, upgrade, roll-back and uninstall in a fresh Debian: scripts/try_install.sh FOLDER [options]
#
#   --suite NAME       bookworm (the default), trixie, ...: a system of that release is made in FOLDER by debootstrap
#   --mirror URL       where from
#   --offline BUNDLE   install from what scripts/bundle.sh has made, without any network
#
# As root, with debootstrap. There is no systemd in there: a stand-in for systemctl, written below, starts the unit's
# command as the unit's user. So what systemd itself makes of the unit is not tried.
set -eu

arguments=$*
suite=bookworm
mirror=http://deb.debian.org/debian
bundle=
folder=
fail() {
    echo "try_install: $1" >&2
    exit 1
}
while [ $# -gt 0 ]; do
    case $1 in
        --suite) suite=$2 && shift ;;
        --mirror) mirror=$2 && shift ;;
        --offline) bundle=$(cd "$2" && pwd) && shift ;;
        -h | --help) sed -n '2,10s/^# \{0,1\}//p' "$0" && exit 0 ;;
        -*) fail "$1 is no option" ;;
        *) folder=$1 ;;
    esac
    shift
done
[ -n "$folder" ] || fail "name a folder: --help"
[ "$(id -u)" = 0 ] || fail "must be run as root"
source=$(cd "$(dirname "$0")/.." && pwd)
root=$folder/$suite
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
root=$folder/$suite

[ -e "$root/usr/bin/python3" ] ||
    debootstrap --variant=minbase --include=ca-certificates,python3,python3-venv "$suite" "$root" "$mirror"

if [ -n "$bundle" ] && [ -z "${EDGE_TRY_CUT_OFF:-}" ]; then
    ! command -v ip >/dev/null && fail "needs ip: apt install iproute2"
    # shellcheck disable=SC2086 # the words that came
    EDGE_TRY_CUT_OFF=yes exec unshare --net "$0" $arguments
fi
[ -z "${EDGE_TRY_CUT_OFF:-}" ] || ip link set lo up

cleanup() {
    inside sh -c 'systemctl stop edge.service' >/dev/null 2>&1 || true
    for one in proc dev/shm dev; do umount "$root/$one" 2>/dev/null || true; done
}
inside() {
    chroot "$root" "$@"
}
trap cleanup EXIT
mountpoint -q "$root/proc" || mount -t proc proc "$root/proc"
mountpoint -q "$root/dev" || mount --bind /dev "$root/dev"
cp /etc/resolv.conf "$root/etc/resolv.conf"
mkdir -p "$root/run/systemd/system"
cat > "$root/usr/local/bin/systemctl" <<'END'
#!/bin/sh
# Stands in for systemd: start, stop and ask after edge.service.
pid=/run/edge.pid
alive() { [ -s $pid ] && kill -0 "$(cat $pid)" 2>/dev/null; }
case "$*" in
    *is-active*) alive ;;
    *is-failed*) [ -s $pid ] && ! alive ;;
    *start*edge.service*)
        alive && exit 0
        command=$(sed -n 's/^ExecStart=//p' /etc/systemd/system/edge.service)
        # shellcheck disable=SC2086
        EDGE_DATA_FOLDER=/var/lib/edge setsid setpriv --reuid=edge --regid=edge --clear-groups \
            $command >> /var/log/edge.log 2>&1 < /dev/null &
        echo $! > $pid
        ;;
    *stop*edge.service* | *disable*)
        if alive; then
            kill "$(cat $pid)"
            while alive; do sleep 0.2; done
        fi
        rm -f $pid
        ;;
esac
END
chmod +x "$root/usr/local/bin/systemctl"

copy() { # NAME: a release in the chroot
    rm -rf "${root:?}/src/$1"
    mkdir -p "$root/src/$1"
    if [ -n "$bundle" ]; then
        tar -xzf "$bundle/edge.tar.gz" -C "$root/src/$1" --strip-components=1
        rm -rf "$root/bundle" && cp -R "$bundle" "$root/bundle"
    else
        for one in setup.cfg pyproject.toml README.md LICENSE edge models systemd scripts docs; do
            cp -R "$source/$one" "$root/src/$1/"
        done
    fi
    cp "$source/tests/photos/obama-1.jpg" "$root/src/photo.jpg"
}
install_() { # NAME
    inside sh "/src/$1/scripts/install.sh" ${bundle:+--offline /bundle}
}
posted() { # the status of a photo, and the persons in the answer
    inside /opt/edge/.venv/bin/python - <<'END'
import json, urllib.error, urllib.request
token = open("/etc/edge/admin.token").read().strip()
body = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a.jpg"\r\n\r\n'
body += open("/src/photo.jpg", "rb").read() + b"\r\n--x--\r\n"
headers = {"token": token, "Content-Type": "multipart/form-data; boundary=x"}
request = urllib.request.Request("http://127.0.0.1:8080/v1/person/create", body, headers)
with urllib.request.urlopen(request) as answer:
    found = json.load(answer)
print(answer.status, len(found["persons"]), len(found["matches"]))
END
}
expect() { # WHAT WANTED GOT
    [ "$2" = "$3" ] || fail "$1: wanted '$2', got '$3'"
    echo "try_install: $1: $3"
}

copy first
install_ first
expect "a photo after the install is somebody new" "200 1 0" "$(posted)"
install_ first
expect "installed again: known" "201 0 1" "$(posted)"

copy second
sed -i 's/^__version__ = .*/__version__ = "99.0.1"/' "$root/src/second/edge/__init__.py"
install_ second
expect "after an upgrade: known" "201 0 1" "$(posted)"
expect "the release in force" "99.0.1" "$(inside /opt/edge/.venv/bin/edge --version | grep -o '99.0.1')"

copy broken
sed -i 's/^__version__ = .*/__version__ = "99.0.2"/' "$root/src/broken/edge/__init__.py"
sed -i 's/^def serve(/def serve(*_: object, **__: object) -> int:\n    raise OSError("broken on purpose")\n\n\ndef served(/' \
    "$root/src/broken/edge/daemon.py"
if install_ broken; then fail "a broken release was taken for a good one"; fi
expect "after a broken upgrade, taken back: known" "201 0 1" "$(posted)"
expect "the release in force" "99.0.1" "$(inside /opt/edge/.venv/bin/edge --version | grep -o '99.0.1')"

inside sh /src/second/scripts/uninstall.sh
[ ! -e "$root/opt/edge" ] || fail "the program is still there"
install_ second
expect "uninstalled, and installed again over the data: known" "201 0 1" "$(posted)"
inside sh /src/second/scripts/uninstall.sh --purge --yes
for one in opt/edge opt/edge-releases var/lib/edge etc/edge etc/systemd/system/edge.service; do
    [ ! -e "$root/$one" ] || fail "/$one is still there after --purge"
done
echo "try_install: all of it holds on $suite"
