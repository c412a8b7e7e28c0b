#!/usr/bin/env bash
# `make book` and `make test` as somebody new does them: another user with an empty home and no caches,
# a path with spaces and letters beyond ASCII, and the unpacked source distribution, which that user
# may read but not write. Needs root, Debian's useradd and runuser, and a python with hatchling.
#
#   tests/clean_machine.sh [GOAL ...]      default: book test
#   PYTHON=...                             default: .venv/bin/python
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${PYTHON:-.venv/bin/python}
[ $# -gt 0 ] || set -- book test
[ "$(id -u)" -eq 0 ] || { echo "needs root, to be another user" >&2; exit 2; }

place=$(mktemp -d)
reader=reader$$
useradd --no-create-home --home-dir "$place/Zu Hause" "$reader"
trap 'pkill -KILL -u "$reader" || true; userdel "$reader"; rm -rf "$place"' EXIT
chmod 755 "$place"
install -d -o "$reader" "$place/Zu Hause"

"$python" -m hatchling build -t sdist -d "$place" >/dev/null
install -d "$place/Bücher zum Lesen"
tar -xzf "$place"/*.tar.gz -C "$place/Bücher zum Lesen" --strip-components=1 --no-same-owner
chmod -R a+rX,a-w "$place/Bücher zum Lesen"

# Of the environment stays what says where packages come from.
passed=(HOME="$place/Zu Hause" PATH=/usr/local/bin:/usr/bin:/bin LANG=C.UTF-8)
while IFS='=' read -r -d '' name value; do
  case "$name" in
    PIP_* | SSL_* | REQUESTS_CA_BUNDLE | *_proxy | *_PROXY) passed+=("$name=$value") ;;
  esac
done < <(env -0)
for goal in "$@"; do
  echo "== make $goal"
  runuser -u "$reader" -- env -i "${passed[@]}" \
    make -C "$place/Bücher zum Lesen" BUILD="$place/Zu Hause/mein Bau" "$goal"
done
if [ -n "$(find "$place/Bücher zum Lesen" -newer "$place"/*.tar.gz -type f -user "$reader")" ]; then
  echo "something was written where nothing may be" >&2
  exit 1
fi
