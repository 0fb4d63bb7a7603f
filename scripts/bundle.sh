#!/bin/sh
# Makes a folder from which scripts/install.sh --offline installs: scripts/bundle.sh FOLDER [pip download's flags ...]
#
# Run it on a machine with a network, with the Python and the processor of the machine that is to be installed: a Pi for a
# Pi. It holds this release (edge.tar.gz), a wheel of everything it needs, and SHA256SUMS. Take it there, then
#
#   tar -xzf FOLDER/edge.tar.gz && sudo edge/scripts/install.sh --offline FOLDER
set -eu
[ $# -ge 1 ] || { sed -n '2,7s/^# \{0,1\}//p' "$0" >&2 && exit 2; }
mkdir -p "$1"
folder=$(cd "$1" && pwd)
shift
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

"$python" -m venv "$scratch/venv"
pip="$scratch/venv/bin/python -m pip --disable-pip-version-check"
rm -f "$folder"/*.whl "$folder/edge.tar.gz" "$folder/SHA256SUMS"
mkdir "$scratch/edge"
for one in setup.cfg pyproject.toml README.md LICENSE edge models systemd scripts docs; do
    [ -e "$one" ] && cp -R "$one" "$scratch/edge/"
done
find "$scratch/edge" \( -name __pycache__ -o -name '*.egg-info' \) -prune -exec rm -rf {} +
tar -czf "$folder/edge.tar.gz" -C "$scratch" edge
# hnswlib has no wheels and builds for the processor it is built on, unless it is told that the wheel travels.
# shellcheck disable=SC2086 # a command and its flags
HNSWLIB_NO_NATIVE=1 $pip wheel --quiet --wheel-dir "$folder" "$@" "$scratch/edge[fleet]" setuptools wheel
rm -f "$folder"/edge-*.whl # installed from the tree, beside its models
cd "$folder"
sha256sum -- * > "$scratch/SHA256SUMS"
mv "$scratch/SHA256SUMS" SHA256SUMS
echo "edge: $(find . -name '*.whl' | wc -l) wheels in $folder, $(du -sh . | cut -f1)"
