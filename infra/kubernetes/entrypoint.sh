#!/usr/bin/env bash
# What Spark on Kubernetes starts in the image: `driver …` or `executor`. Anything else is run as it stands, for a look
# around: `docker run … sparkrec query tables warehouse.path=/data/warehouse`.
#
# The Spark operator knows no exit codes: to it, whatever is not 0 has failed. So a night whose model the gate held back
# (3) ends with 0 here, and the pod's termination message says what happened.
set -euo pipefail
HELD_BACK=3
TERMINATION_LOG=${TERMINATION_LOG:-/dev/termination-log}

driver() { # arguments of spark-submit
    local code=0
    trap : TERM # reaches Spark too: wait for its end
    "$SPARK_HOME/bin/spark-submit" \
        --conf "spark.driver.bindAddress=$SPARK_DRIVER_BIND_ADDRESS" \
        --conf "spark.executorEnv.SPARK_DRIVER_POD_IP=$SPARK_DRIVER_BIND_ADDRESS" \
        --deploy-mode client "$@" || code=$?
    if [ "$code" = "$HELD_BACK" ]; then
        echo "the gate held a model back: its lists of the night before stay current, see sparkrec query runs" |
            tee "$TERMINATION_LOG" >&2
        code=0
    fi
    exit "$code"
}

executor() {
    local options=() name number
    for ((number = 0; ; number++)); do
        name=SPARK_JAVA_OPT_$number
        [ -n "${!name+set}" ] || break
        options+=("${!name}")
    done
    exec "$JAVA_HOME/bin/java" "${options[@]}" "-Xms$SPARK_EXECUTOR_MEMORY" "-Xmx$SPARK_EXECUTOR_MEMORY" \
        -cp "${SPARK_CONF_DIR:+$SPARK_CONF_DIR:}${SPARK_CLASSPATH:+$SPARK_CLASSPATH:}$SPARK_HOME/jars/*" \
        org.apache.spark.scheduler.cluster.k8s.KubernetesExecutorBackend \
        --driver-url "$SPARK_DRIVER_URL" \
        --executor-id "$SPARK_EXECUTOR_ID" \
        --cores "$SPARK_EXECUTOR_CORES" \
        --app-id "$SPARK_APPLICATION_ID" \
        --hostname "$SPARK_EXECUTOR_POD_IP" \
        --resourceProfileId "$SPARK_RESOURCE_PROFILE_ID" \
        --podName "$SPARK_EXECUTOR_POD_NAME"
}

case ${1:-} in
driver) driver "${@:2}" ;;
executor) executor ;;
*) exec "$@" ;;
esac
