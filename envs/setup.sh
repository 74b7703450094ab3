#!/usr/bin/env bash
# Makes the virtual environment of the project: pinned dependencies, then the package itself.
#
#   envs/setup.sh FOLDER
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${1:-.venv}

python=""
for candidate in python3 python3.13 python3.12 python3.11; do
  if command -v "$candidate" >/dev/null && "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    python=$candidate
    break
  fi
done
if [ -z "$python" ]; then
  echo "setup: no Python 3.11 or newer is on the PATH; install one (Debian 12: apt install python3 python3-venv)" >&2
  exit 1
fi

if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then # Debian's python3 comes without
  version=$("$python" -c 'import sys; print(f"{sys.version_info[0]}.{sys.version_info[1]}")')
  echo "setup: installing python$version-venv" >&2
  as_root=""
  [ "$(id -u)" = 0 ] || as_root="sudo"
  if ! { $as_root apt-get update -qq && $as_root apt-get install -y -qq "python$version-venv"; } >&2; then
    echo "setup: $python has no venv module; install the package python$version-venv and start again" >&2
    exit 1
  fi
fi

[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
echo "setup: installing the pinned dependencies into $venv (a few minutes the first time)" >&2
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --requirement requirements.lock
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --editable .
