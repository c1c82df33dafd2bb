"""The version of the code that a stage ran with."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from importlib import resources
from importlib.resources.abc import Traversable

import sparkrec


def code_version() -> str:
    """``<package version>+<hash of its sources>``: differs whenever any module or shipped setting does."""
    digest = hashlib.sha256()
    for path, node in sorted(_sources(resources.files(sparkrec), "")):
        digest.update(path.encode())
        digest.update(node.read_bytes())
    return f"{sparkrec.__version__}+{digest.hexdigest()[:10]}"


def _sources(folder: Traversable, prefix: str) -> Iterator[tuple[str, Traversable]]:
    for node in folder.iterdir():
        path = f"{prefix}/{node.name}"
        if node.is_dir():
            yield from _sources(node, path)
        elif node.name.endswith(".py"):
            yield path, node
