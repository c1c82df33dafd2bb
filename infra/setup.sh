#!/usr/bin/env bash
# Makes .venv ready: Python packages from the lock files, Horovod built from source, Delta's jars, the package itself.
#
# Restartable: what an interrupted run left is taken up again. A stamp holds the hash of all that the set-up depends
# on; while it fits, there is nothing to do. SPARKREC_HOROVOD=cpu|nccl overrules what the machine suggests; STORES=s3,gcs
# fetches the jars of object stores as well.
set -euo pipefail
cd "$(dirname "$0")/.."
export PIP_DISABLE_PIP_VERSION_CHECK=1
VENV=$PWD/.venv
STAMP=$VENV/.sparkrec-setup
PYTHON3=${PYTHON3:-python3.11}
INPUTS=(infra/setup.sh infra/uv.lock infra/build.lock infra/requirements.lock infra/jars.py sparkrec/spark/jars.py
    conf/jars/*.sha256 infra/archive.py pyproject.toml infra/horovod/build.sh infra/horovod/*.patch infra/horovod/*.lock)

fail() {
    echo "make setup: $*" >&2
    exit 1
}

say() { echo "setup: $*" >&2; }

mb() { du -sm "$1" 2>/dev/null | cut -f1; }

exec {NEVER}<> <(:) # a pipe that says nothing: waiting on it needs no process, which a kill would leave behind
wait $! || true
WATCHER=            # of the step that runs: says that it goes on
ARCHIVE=            # makes the archive of classes beside the compiler
trap 'for p in $WATCHER $ARCHIVE; do kill "$p" 2>/dev/null || true; done' EXIT

step() { # NAME WHAT-TO-EXPECT COMMAND…: says what it does, every half minute that it goes on, and how long it took
    local name=$1 expect=$2 began=$SECONDS
    shift 2
    say "$name: $expect"
    watch "$name" "$began" &
    WATCHER=$!
    "$@"
    kill "$WATCHER" 2>/dev/null
    wait "$WATCHER" 2>/dev/null || true
    WATCHER=
    say "$name: done in $((SECONDS - began)) s"
}

watch() { # NAME BEGAN
    while :; do
        read -rt "${SPARKREC_SETUP_SAYS:-30}" -u "$NEVER" || true
        say "$1: $((SECONDS - $2)) s so far, .venv has $(mb "$VENV") MB"
    done
}

install() { # links what uv's cache has, and shows uv's bars where a person watches
    local quiet=--quiet
    [ -t 2 ] && quiet=
    "$VENV/bin/uv" pip install $quiet --python "$VENV/bin/python" --no-deps "$@" >&2
}

pip_setting() { "$VENV/bin/pip" config get "global.$1" 2>/dev/null || "$VENV/bin/pip" config get ":env:.$1" 2>/dev/null; }

provide_uv() { # with pip's own index, certificates and patience, where pip has been given some
    local index cert
    "$VENV/bin/pip" install --quiet --require-hashes --no-deps -r infra/uv.lock
    index=$(pip_setting index-url) && export UV_DEFAULT_INDEX=${UV_DEFAULT_INDEX:-$index}
    cert=$(pip_setting cert) && export SSL_CERT_FILE=${SSL_CERT_FILE:-$cert}
    export UV_HTTP_TIMEOUT=${UV_HTTP_TIMEOUT:-180}
}

check_python() {
    command -v "$PYTHON3" >/dev/null || fail "Python 3.11 is missing: install python3.11 (apt-get install python3.11 \
python3.11-venv python3.11-dev, or pyenv install 3.11), or name it with PYTHON3=/path/to/python3.11"
    "$PYTHON3" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' >/dev/null 2>&1 ||
        fail "Python 3.11 is needed, but $PYTHON3 is $("$PYTHON3" --version 2>&1 | head -1): install python3.11, or \
name it with PYTHON3=/path/to/python3.11"
    "$PYTHON3" -c 'import ensurepip, venv' 2>/dev/null ||
        fail "Python's venv module is missing: apt-get install python3.11-venv"
    "$PYTHON3" -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' ||
        fail "Python's headers are missing: apt-get install python3.11-dev"
}

check_java() { # the one that Spark would start
    local java=java version
    [ -n "${JAVA_HOME:-}" ] && java=$JAVA_HOME/bin/java
    command -v "$java" >/dev/null ||
        fail "Java 17 is missing ($java): apt-get install openjdk-17-jre-headless, or set JAVA_HOME to a Java 17"
    version=$("$java" -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p' | head -1)
    [ "$version" = 17 ] ||
        fail "Java 17 is needed, but $java is Java ${version:-of an unknown version}: apt-get install \
openjdk-17-jre-headless, and set JAVA_HOME to it"
}

check_compiler() {
    command -v "${CXX:-c++}" >/dev/null ||
        fail "a C++ compiler is missing (${CXX:-c++}): apt-get install g++, or name one with CXX="
}

fingerprint() {
    {
        echo "$PWD ${SPARKREC_HOROVOD:-auto} ${STORES:-}"
        command -v nvidia-smi || true
        "$PYTHON3" -VV
        cat "${INPUTS[@]}"
    } | sha256sum | cut -d' ' -f1
}

make_venv() {
    # A virtual environment knows its own path: one that was moved, or lost its Python, is made anew.
    "$VENV/bin/pip" --version >/dev/null 2>&1 && return
    rm -rf "$VENV"
    "$PYTHON3" -m venv "$VENV"
}

install_locked() {
    provide_uv
    install --require-hashes -r infra/build.lock
    # Without build isolation: what is built from source is built with the locked tools.
    install --require-hashes --no-build-isolation -r infra/requirements.lock
}

install_horovod() {
    local wheel
    wheel=$(PYTHON="$VENV/bin/python" infra/horovod/build.sh ${SPARKREC_HOROVOD:-})
    [ "$(cat "$VENV/.horovod-wheel" 2>/dev/null)" = "$wheel" ] && return
    install --reinstall "$wheel"
    echo "$wheel" >"$VENV/.horovod-wheel"
}

install_jars() {
    local log=$VENV/jars.log
    "$VENV/bin/python" infra/jars.py ${STORES//,/ } >"$log" 2>&1 ||
        fail "jars could not be fetched, see $log: $(grep -v '^\s*at ' "$log" | tail -1)"
}

archive_classes() { # a night does without it
    local log=$VENV/archive.log
    "$VENV/bin/python" infra/archive.py >"$log" 2>&1 || say "classes: no archive was made, see $log"
}

finish_classes() {
    wait "$ARCHIVE" 2>/dev/null || true # it may have ended long ago
    ARCHIVE=
}

check_packages() {
    local conflicts
    conflicts=$("$VENV/bin/pip" check) || fail "the packages do not fit together: $(head -1 <<<"$conflicts")"
}

check_python
check_java
check_compiler
wanted=$(fingerprint)
if [ "$(cat "$STAMP" 2>/dev/null)" = "$wanted" ] && "$VENV/bin/python" -c '' 2>/dev/null; then
    exit 0
fi
rm -f "$STAMP"
say "the first time takes 5 to 15 minutes and 7 GB in .venv; what is there already is kept"
step "environment" "Python's venv in .venv" make_venv
step "packages" "infra/requirements.lock, about 3 GB to download (most of it PyTorch's), 3 to 8 minutes" install_locked
step "jars" "Delta's${STORES:+ and those of $STORES}, 10 to 50 MB, half a minute" install_jars
step "sparkrec" "this checkout, seconds" install --no-build-isolation --editable .
archive_classes & # on one core, as is much of Horovod's build
ARCHIVE=$!
step "Horovod" "its wheel is built once for each machine, 2 to 10 minutes" install_horovod
step "classes" "an archive of Spark's, from which its JVM starts faster, begun meanwhile" finish_classes
step "check" "whether the packages fit together" check_packages
echo "$wanted" >"$STAMP"
say "ready after $SECONDS s"
