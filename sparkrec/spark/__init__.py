"""The session: Spark, the JVM behind it, and what fits the machine and the log."""
