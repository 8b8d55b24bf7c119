#!/bin/sh
# Make a virtual environment with a current pip: scripts/make-venv.sh FOLDER
#
# $PYTHON names the interpreter (default: python3); it must be 3.11 or later. Debian ships
# Python without the module that puts pip into an environment; it is installed if it is missing.
set -eu

scripts=$(cd "$(dirname "$0")" && pwd)
folder=$1
python=${PYTHON:-python3}

if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "upshot needs Python 3.11 or later, and \`$python\` is not; name one with PYTHON=..." >&2
    exit 1
fi
if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    package=python$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-venv
    echo "$python cannot make virtual environments; installing $package"
    "$scripts/apt-install.sh" "$package"
fi
"$python" -m venv "$folder"
# `--group` came with pip 25.1; Debian 12 has 23.
"$folder/bin/python" -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
