#!/usr/bin/env bash
# Creates a virtual environment with the locked versions. Usage: setup.sh VENV cpu|cuda
# Interrupted or repeated runs are safe: the stamp file comes last.
set -euo pipefail
venv=$1 flavour=${2:-cpu}

python=
for candidate in python3.11 python3.12 python3.13 python3; do
    if command -v "$candidate" >/dev/null && "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        python=$candidate
        break
    fi
done
if [ -z "$python" ]; then
    echo "Athena needs Python 3.11 or newer: install it, then run make again." >&2
    exit 78
fi

[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
pip() { "$venv/bin/python" -m pip --disable-pip-version-check "$@"; }
export PIP_NO_COMPILE=1 # Python compiles what it imports; all modules of all packages would take a minute and a half

torch=$(grep -E '^torch==' requirements.lock)
if ! pip show -q torch 2>/dev/null; then
    if [ "$flavour" = cpu ] && [ "$(uname -s)" = Linux ]; then
        # The CPU wheel is a tenth of the CUDA one; an index without it falls through to the next.
        pip install -q "${torch}+cpu" 2>/dev/null ||
            pip install -q --retries 1 --timeout 15 --index-url https://download.pytorch.org/whl/cpu "${torch}" 2>/dev/null ||
            pip install "${torch}"
    else
        pip install "${torch}"
    fi
fi
# The lock is complete, so pip need not search for versions that fit together. Where a wheel is missing, it does.
pip install -q --no-deps -r requirements.lock 2>/dev/null || true
pip install -q -c requirements.lock -e '.[dev]'
touch "$venv/.ready"
