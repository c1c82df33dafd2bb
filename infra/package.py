"""Makes ``dist/sparkrec.zip`` for ``spark-submit --py-files``: the package, with ``conf/`` inside as ``sparkrec/conf``.

The same sources give the same bytes.
"""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
EPOCH = (1980, 1, 1, 0, 0, 0)


def make_package(target: Path) -> Path:
    """Writes the zip and returns its path."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_suffix(".part")
    with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as package:
        for name, file in sorted(_members().items()):
            package.writestr(zipfile.ZipInfo(name, EPOCH), file.read_bytes(), zipfile.ZIP_DEFLATED)
    part.replace(target)
    return target


def _members() -> dict[str, Path]:
    """Names in the zip, and the files that they are."""
    files = [file for pattern in ("*.py", "templates/*") for file in (ROOT / "sparkrec").rglob(pattern)]
    code = {str(file.relative_to(ROOT)): file for file in files}
    conf = {f"sparkrec/{file.relative_to(ROOT)}": file for file in (ROOT / "conf").rglob("*") if file.is_file()}
    return {**code, **conf}


if __name__ == "__main__":
    print(make_package(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "dist" / "sparkrec.zip"))
