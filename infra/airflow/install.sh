#!/usr/bin/env bash
# Makes an environment with the locked Airflow, once, and prints its path.
#
#     infra/airflow/install.sh [DIR]     default: ${XDG_CACHE_HOME:-~/.cache}/sparkrec/airflow/KEY
#
# KEY is a hash of the lock and of Python. About a minute and 300 MB. A stamp is written last: what an interrupted run
# left is made anew. PYTHON3 names the interpreter (default python3.11).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
lock=$here/requirements.lock
PYTHON3=${PYTHON3:-python3.11}
export PIP_DISABLE_PIP_VERSION_CHECK=1

fail() {
    echo "airflow: $*" >&2
    exit 1
}

command -v "$PYTHON3" >/dev/null || fail "Python is missing: $PYTHON3; name one with PYTHON3=/path/to/python3.11"
key=$({
    cat "$lock"
    "$PYTHON3" -VV
    command -v "$PYTHON3"
} | sha256sum | cut -c1-16)
place=${1:-${XDG_CACHE_HOME:-$HOME/.cache}/sparkrec/airflow/$key}
mkdir -p "$place"
exec 9>"$place/.installing" # two at once: the second waits, and finds the stamp
flock 9
if [ "$(cat "$place/.sparkrec-airflow" 2>/dev/null)" != "$key" ]; then
    rm -f "$place/.sparkrec-airflow"
    echo "airflow: packages from ${lock#"$PWD"/} into $place, about a minute" >&2
    "$PYTHON3" -m venv --clear "$place/env"
    # Most of it is never imported: what is, Python compiles then.
    "$place/env/bin/pip" install --quiet --require-hashes --no-deps --only-binary :all: --no-compile -r "$lock" \
        >"$place/log" 2>&1 ||
        fail "the packages could not be installed, see $place/log: $(grep -m1 ERROR "$place/log" || tail -1 "$place/log")"
    "$place/env/bin/pip" check >>"$place/log" || fail "the packages do not fit together, see $place/log"
    echo "$key" >"$place/.sparkrec-airflow"
fi
echo "$place/env"
