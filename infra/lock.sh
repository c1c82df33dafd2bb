#!/usr/bin/env bash
# Renews the lock files from pyproject.toml, infra/horovod/*.in and infra/airflow/airflow.in. Versions that still fit
# stay as they are; `infra/lock.sh --upgrade` takes the newest that fit, `--upgrade-package NAME` those of one package.
# Run it after a change of the dependencies, then `make test`, then commit the lock files.
set -euo pipefail
cd "$(dirname "$0")/.."

tools=$(mktemp -d)
trap 'rm -rf "$tools"' EXIT
python3.11 -m venv "$tools"
"$tools/bin/pip" install --quiet --disable-pip-version-check -r infra/uv.in

compile() { # INPUT… OUTPUT: the last argument is the lock file
    local output=${*: -1}
    UV_CUSTOM_COMPILE_COMMAND="infra/lock.sh" "$tools/bin/uv" pip compile "${@:1:$#-1}" --output-file "$output" \
        --python-version 3.11 --python-platform linux --generate-hashes --no-annotate \
        --no-emit-index-url --no-emit-find-links --quiet "${upgrade[@]}"
    echo "$output: $(grep -c '==' "$output") packages"
}

upgrade=("$@")
compile pyproject.toml infra/build.in --extra spark --extra ranks --extra stores --extra images --extra dev --extra bench \
    infra/requirements.lock
compile infra/build.in --constraints infra/requirements.lock infra/build.lock
for name in horovod cmake cuda; do
    compile "infra/horovod/$name.in" --no-deps "infra/horovod/$name.lock"
done
compile infra/uv.in infra/uv.lock
compile infra/airflow/airflow.in infra/airflow/requirements.lock
