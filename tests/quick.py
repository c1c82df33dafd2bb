"""Settings of Spark for logs of a few thousand rows, which take longer to compile for than to read."""

_JVM = (
    "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC -XX:ReservedCodeCacheSize=240m -Djdk.lang.Process.launchMechanism=VFORK"
)
QUICK = {
    "spark.driver.extraJavaOptions": _JVM,
    "spark.executor.extraJavaOptions": _JVM,
    "spark.sql.codegen.wholeStage": "false",
    "spark.sql.codegen.factoryMode": "NO_CODEGEN",
    "spark.sql.ui.explainMode": "simple",
    "spark.sql.shuffle.partitions": "2",
    "spark.default.parallelism": "2",
    "spark.databricks.delta.snapshotPartitions": "1",
    "spark.sql.sources.parallelPartitionDiscovery.parallelism": "2",  # tasks of a VACUUM
    "spark.python.sql.dataFrameDebugging.enabled": "false",  # no line of each column's code for messages of errors
    "spark.sql.dataFrameQueryContext.enabled": "false",
}
LOCAL = {  # of one machine, as spark.sizing has it; clusters adapt
    **QUICK,
    "spark.sql.adaptive.enabled": "false",
    "spark.driver.extraJavaOptions": f"{_JVM} -Xmn256m",  # what is young goes without a look at all the rest
}
