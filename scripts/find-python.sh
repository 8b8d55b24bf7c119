#!/bin/sh
# Print the path of a Python that Django 6 runs on, 3.12 or later; get one if there is none.
#
#     scripts/find-python.sh FOLDER
#
# Looked for in this order: $PYTHON, then python3.14, python3.13 and python3.12 on PATH; what pyenv
# has; Debian's packages; and last one that `uv` downloads into FOLDER, with `uv` itself from PyPI.
# A Python counts only if it runs: pyenv puts a program on PATH for every version that it has, and
# most of those only say that they are not chosen. Exit code 1: none; what was tried is printed.
set -eu

scripts=$(cd "$(dirname "$0")" && pwd)
folder=$1
tried=

works() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 12))' >/dev/null 2>&1
}

# Print the interpreter's own path and end, if it works; otherwise note that it does not.
try() {
    command -v "$1" >/dev/null 2>&1 || return 0
    if works "$1"; then
        "$1" -c 'import sys; print(sys.executable)'
        exit 0
    fi
    tried="$tried
  $(command -v "$1"): is older than 3.12, or does not run"
}

from_pyenv() {
    command -v pyenv >/dev/null 2>&1 || { [ -d "$HOME/.pyenv/versions" ] || return 0; }
    root=$(pyenv root 2>/dev/null || echo "$HOME/.pyenv")
    for found in "$root"/versions/*/bin/python3.1[2-9]; do
        if [ -x "$found" ]; then try "$found"; fi
    done
    tried="$tried
  $root/versions: no 3.12 or later"
}

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

from_debian() {
    command -v apt-cache >/dev/null 2>&1 || return 0
    # The package lists of a fresh machine are empty.
    ls /var/lib/apt/lists/*_Packages >/dev/null 2>&1 ||
        as_root apt-get update --quiet >/dev/null 2>&1 || true
    for version in 3.14 3.13 3.12; do
        apt-cache show "python$version-venv" >/dev/null 2>&1 || continue
        "$scripts/apt-install.sh" "python$version" "python$version-venv" >&2 || true
        try "python$version"
    done
    tried="$tried
  apt: this Debian has no package of 3.12 or later that could be installed"
}

from_uv() {
    mkdir -p "$folder"
    if ! [ -x "$folder/uv/bin/uv" ]; then
        PYTHON=${PYTHON:-python3} "$scripts/make-venv.sh" "$folder/uv" >&2 &&
            "$folder/uv/bin/python" -m pip install --quiet --disable-pip-version-check uv >&2 || {
            tried="$tried
  uv: cannot be installed from PyPI; see above"
            return 0
        }
    fi
    UV_PYTHON_INSTALL_DIR=$folder/pythons "$folder/uv/bin/uv" python install 3.13 >&2 ||
        tried="$tried
  uv python install 3.13: failed; see above"
    for found in "$folder"/pythons/cpython-3.13*/bin/python3.13; do
        if [ -x "$found" ]; then try "$found"; fi
    done
}

for name in ${PYTHON:+"$PYTHON"} python3.14 python3.13 python3.12; do
    try "$name"
done
from_pyenv
from_debian
from_uv
echo "Django 6 needs Python 3.12 or later, and there is none. Tried:$tried" >&2
echo "Install one, such as Debian 13's python3.13 and python3.13-venv, and put it on PATH." >&2
exit 1
