#!/bin/sh
# make-venv.sh FOLDER [PYTHON]: a virtual environment of Python 3.11 or newer, or one line that says what is missing.
folder=$1
asked=$2

fits() { "$1" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

fail() {
    echo "$1" >&2
    exit 2
}

if [ -n "$asked" ]; then
    command -v "$asked" >/dev/null || fail "There is no Python called $asked: name another with make PYTHON=/path/to/python3.12"
    fits "$asked" || fail "$asked is $("$asked" --version 2>/dev/null || echo "no Python that starts"); the course needs Python 3.11 or newer with venv (Debian, Ubuntu: apt-get install python3-venv)"
    python=$asked
else
    for name in python3.11 python3.12 python3.13 python3.14 python3 python; do
        if fits "$name"; then python=$name && break; fi
    done
    [ -n "$python" ] || fail "No Python 3.11 or newer with venv was found: install one (Debian, Ubuntu: apt-get install python3 python3-venv), or name it with make PYTHON=/path/to/python3.12"
fi

echo "Making $folder with $("$python" --version)"
"$python" -m venv "$folder" || fail "$python could not make $folder"
