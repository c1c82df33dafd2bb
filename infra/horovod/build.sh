#!/usr/bin/env bash
# Builds Horovod's wheel from its sdist, once, and prints the wheel's path.
#
#     infra/horovod/build.sh [cpu|nccl]      default: nccl where nvidia-smi finds a device, else cpu
#
# PYTHON names the interpreter to build for (default .venv/bin/python); torch and infra/build.lock are installed there.
# The wheel stays in ${XDG_CACHE_HOME:-~/.cache}/sparkrec/horovod/KEY/; KEY covers all that it depends on.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
PYTHON=${PYTHON:-$here/../../.venv/bin/python}
export PIP_DISABLE_PIP_VERSION_CHECK=1

fail() {
    echo "horovod: $*" >&2
    exit 1
}

has_gpu() { command -v nvidia-smi >/dev/null && nvidia-smi -L 2>/dev/null | grep -q '^GPU'; }

compiler() { "${CXX:-c++}" --version | head -1; }

key() { # VARIANT
    local files=("$here/build.sh" "$here"/*.patch "$here/horovod.lock")
    [ "$1" = nccl ] && files+=("$here/cuda.lock")
    {
        echo "$1"
        compiler
        cat "${files[@]}"
        "$PYTHON" - <<'PY'
import platform, sysconfig
from importlib.metadata import distributions
names = {d.name: d.version for d in distributions()}
print(sysconfig.get_config_var("SOABI"), platform.machine(), *platform.libc_ver())
print({n: v for n, v in sorted(names.items()) if n == "torch" or n.startswith("nvidia-nccl")})
PY
    } | sha256sum | cut -c1-16
}

pip_target() { # LOCK TARGET: installs a lock file into a folder of its own
    "$PYTHON" -m pip install --quiet --require-hashes --no-deps --only-binary :all: --target "$2" -r "$1"
}

provide_cmake() { # WORK: Horovod's CMake files are older than CMake 4
    export CMAKE_POLICY_VERSION_MINIMUM=3.5
    command -v cmake >/dev/null && return
    pip_target "$here/cmake.lock" "$1/cmake"
    export PATH="$1/cmake/cmake/data/bin:$PATH"
}

provide_cuda() { # WORK: a CUDA_HOME of torch's CUDA packages and the compiler beside them
    local nvidia
    nvidia=$("$PYTHON" -c 'import importlib.util as u; print(u.find_spec("nvidia").submodule_search_locations[0])')
    [ -d "$nvidia/cu13" ] || fail "torch's CUDA packages are not in $nvidia/cu13: set SPARKREC_HOROVOD=cpu"
    pip_target "$here/cuda.lock" "$1/toolchain"
    mkdir -p "$1/nccl"
    cp -rs "$nvidia/cu13" "$1/cuda"
    cp -rs "$nvidia/nccl/." "$1/nccl"
    cp -r --remove-destination "$1/toolchain/nvidia/cu13/." "$1/cuda"
    ln -sfn lib "$1/cuda/lib64"
    ln -sf libcudart.so.13 "$1/cuda/lib/libcudart.so"
    ln -sf libnccl.so.2 "$1/nccl/lib/libnccl.so"
    export CUDA_HOME="$1/cuda" HOROVOD_CUDA_HOME="$1/cuda" CUDAToolkit_ROOT="$1/cuda" PATH="$1/cuda/bin:$PATH"
    export HOROVOD_GPU_OPERATIONS=NCCL HOROVOD_NCCL_HOME="$1/nccl" HOROVOD_NCCL_LINK=SHARED
    export HOROVOD_BUILD_CUDA_CC_LIST=${HOROVOD_BUILD_CUDA_CC_LIST:-80,90}
}

apply_patches() { # SOURCE
    local patch
    for patch in "$here"/*.patch; do
        if command -v patch >/dev/null; then
            patch --directory "$1" --strip 1 --batch <"$patch"
        else
            (cd "$1" && GIT_CEILING_DIRECTORIES=$(dirname "$1") git apply "$patch")
        fi
    done
}

build() { # VARIANT WORK: leaves the wheel in WORK/wheel
    export PATH="$(cd "$(dirname "$PYTHON")" && pwd):$PATH"
    provide_cmake "$2"
    [ "$1" = nccl ] && provide_cuda "$2"
    "$PYTHON" -m pip download --quiet --require-hashes --no-deps --no-binary horovod --no-build-isolation \
        -r "$here/horovod.lock" --dest "$2/sdist"
    mkdir "$2/source"
    tar xzf "$2"/sdist/horovod-*.tar.gz --strip-components 1 -C "$2/source"
    apply_patches "$2/source"
    export HOROVOD_WITH_PYTORCH=1 HOROVOD_WITH_GLOO=1 HOROVOD_WITHOUT_MPI=1
    export HOROVOD_WITHOUT_TENSORFLOW=1 HOROVOD_WITHOUT_MXNET=1
    export MAKEFLAGS="-j${JOBS:-$(nproc)}"
    "$PYTHON" -m pip wheel --verbose --no-build-isolation --no-deps --no-cache-dir -w "$2/wheel" "$2/source"
}

variant=${1:-}
[ -n "$variant" ] || { has_gpu && variant=nccl || variant=cpu; }
[ "$variant" = cpu ] || [ "$variant" = nccl ] || fail "no such variant: $variant (cpu or nccl)"
cache=${XDG_CACHE_HOME:-$HOME/.cache}/sparkrec/horovod
place=$cache/$(key "$variant")
if ! ls "$place"/horovod-*.whl >/dev/null 2>&1; then
    mkdir -p "$cache"
    work=$(mktemp -d "$cache/build.XXXXXX") # beside its place, so that the move below is one rename
    trap 'rm -rf "$work"' EXIT
    echo "horovod: building the wheel ($variant), 2 to 10 minutes; log: $cache/build.log" >&2
    set +e # bash would ignore it inside the build in an `if` or before `||`
    (
        set -e
        build "$variant" "$work"
    ) >"$work/build.log" 2>&1
    built=$?
    set -e
    cp "$work/build.log" "$cache/build.log"
    [ "$built" = 0 ] || fail "the build failed, see $cache/build.log: $(grep -m1 -iE 'error' "$work/build.log" || true)"
    # Another build of the same wheel may have come first: then that one stays.
    mv -T "$work/wheel" "$place" 2>/dev/null || [ -d "$place" ]
fi
ls "$place"/horovod-*.whl
