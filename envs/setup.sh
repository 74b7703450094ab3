#!/usr/bin/env bash
# Makes the virtual environment of the project: pinned dependencies, then the package itself. Both are installed by uv,
# which is there or comes by pip, and by pip where uv cannot.
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
pip=("$venv/bin/python" -m pip --disable-pip-version-check)

quiet=(--quiet) # a terminal shows how far downloads are
[ ! -t 2 ] || quiet=()

with_uv() {
  local uv
  if ! uv=$(command -v uv); then
    "${pip[@]}" install --quiet "$(grep ^uv== requirements.lock)" || return
    uv=$venv/bin/uv
  fi
  eval "$("${pip[@]}" config list | "$python" envs/pip_settings.py)"
  export UV_INDEX_STRATEGY=unsafe-best-match # the best of all indices, as pip takes it
  "$uv" pip install "${quiet[@]}" --python "$venv/bin/python" --requirement requirements.lock &&
    "$uv" pip install --quiet --python "$venv/bin/python" --no-deps --editable .
}

with_pip() {
  "${pip[@]}" install "${quiet[@]}" --no-compile --requirement requirements.lock &&
    "${pip[@]}" install --quiet --no-deps --editable .
}

echo "setup: installing the pinned dependencies into $venv (a minute with uv, some with pip)" >&2
(with_uv) || { echo "setup: uv could not; pip installs them" >&2 && with_pip; }

# pip compiles every file of every package, for a minute; here only what is imported is, so that it lies there also where
# the environment forbids Python to write bytecode and every job would compile again.
env --unset=PYTHONDONTWRITEBYTECODE "$venv/bin/python" - <<'PYTHON'
import contextlib
import importlib
import pkgutil

import saeflow
import snakemake.cli  # noqa: F401

for module in pkgutil.walk_packages(saeflow.__path__, "saeflow."):
    with contextlib.suppress(ModuleNotFoundError):  # Triton comes with torch for GPUs alone
        importlib.import_module(module.name)
PYTHON
