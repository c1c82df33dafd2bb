"""Asks a session's JVM once for each name. Imported where there is a session: readers have no Py4J."""

from __future__ import annotations

from typing import Any

from py4j.java_gateway import JavaPackage, JVMView


class KnownNames(JVMView):  # type: ignore[misc]  # Py4J has no types
    """A JVM's names, each looked up once.

    PySpark asks for the same few names with every call on a table, and for most the JVM walks through all its jars, as
    the packages that it tries first do not have them: a tenth of what a small night takes.
    """

    def __getattr__(self, name: str) -> Any:
        """A class or a package."""
        return _keep(self, name, super().__getattr__(name))


class _KnownPackage(JavaPackage):  # type: ignore[misc]
    def __getattr__(self, name: str) -> Any:
        return _keep(self, name, super().__getattr__(name))


def _keep(owner: object, name: str, found: Any) -> Any:
    """Keeps what was found as an attribute; what no class is called by yet is a package to Py4J, however written."""
    if isinstance(found, JavaPackage):
        if not name.islower():
            return found
        found = _KnownPackage(found._fqn, found._gateway_client, jvm_id=found._jvm_id)
    owner.__dict__[name] = found
    return found


def know_names() -> None:
    """Lets PySpark's connection to its JVM remember names; there is one for each process."""
    from pyspark import SparkContext

    gateway: Any = SparkContext._gateway  # type: ignore[attr-defined]
    if not isinstance(gateway.jvm, KnownNames):
        names = KnownNames.__new__(KnownNames)
        names.__dict__.update(vars(gateway.jvm))
        gateway.jvm = SparkContext._jvm = names  # type: ignore[attr-defined]
