# What ./test and ./demo need of the machine. To be sourced, from the root of the project.
#
# The Python is the distribution's, because python-rados (no package index has it) is a compiled module of that
# Python; the virtual environment lets the system's packages through for the same reason.

PYTHON=${PYTHON:-/usr/bin/python3}

PATH=$PATH:/usr/sbin:/sbin  # where Debian keeps mke2fs

# have PROGRAM...: whether all of them are there.
have() {
    local program
    for program; do command -v "$program" >/dev/null || return 1; done
}

say() { printf '\n== %s\n' "$*" >&2; }

# need_packages PACKAGE...: install them, where the machine has apt and we are root; else say what is missing.
need_packages() {
    if [ "$(id -u)" != 0 ] || ! have apt-get; then
        echo "missing on this machine, please install: $*" >&2
        return 1
    fi
    say "installing $*"
    local install=(apt-get install -y -qq --no-install-recommends "$@")
    export DEBIAN_FRONTEND=noninteractive
    # Package lists that are absent or too old are the usual reason for a failure.
    "${install[@]}" >/dev/null 2>&1 || { apt-get update -qq && "${install[@]}" >/dev/null; }
}

need_python() {
    "$PYTHON" -c 'import ensurepip' 2>/dev/null || need_packages python3 python3-venv
    "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
        echo "$PYTHON is older than Python 3.11" >&2
        return 1
    }
}

# need_environment REQUIREMENT: .venv with this project, as `pip install -e REQUIREMENT` makes it; again only after
# pyproject.toml has changed.
need_environment() {
    local stamp=".venv/installed-${1//[^a-z]/}"
    [ -x .venv/bin/python ] || "$PYTHON" -m venv --system-site-packages .venv
    if [ ! -e "$stamp" ] || [ pyproject.toml -nt "$stamp" ]; then
        say "installing $1 into .venv"
        .venv/bin/python -m pip install --quiet --disable-pip-version-check -e "$1"
        touch "$stamp"
    fi
}
