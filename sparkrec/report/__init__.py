"""The report of a night: one HTML page, from the tables and models alone, without Spark or Java."""

from __future__ import annotations

from sparkrec.settings.sections import ReportConfig
from sparkrec.storage import files
from sparkrec.warehouse.location import Warehouse
from sparkrec.warehouse.reading import LATEST

PAGE = ".html"  # after the night's date


def reports_folder(warehouse: Warehouse, config: ReportConfig) -> str:
    """Where the nights' pages are."""
    return config.path or files.join(warehouse.path, "reports")


def write_report(warehouse: Warehouse, config: ReportConfig, run_date: str = LATEST, out: str | None = None) -> str:
    """Writes the report of a night; readers see the page of before or the whole new one.

    Args:
        warehouse: Where the tables are.
        config: Where reports go, and what they show.
        run_date: The night, ``YYYY-MM-DD`` or ``latest``.
        out: The file; by default ``<run_date>.html`` in the folder of reports.

    Returns:
        The file's path.

    Raises:
        UserError: Nothing has run in the warehouse, or not this night; the place cannot be written.
    """
    from sparkrec.report.gather import gather
    from sparkrec.report.page import page

    report = gather(warehouse, run_date, nights=config.nights, users=config.users)
    path = out or files.join(reports_folder(warehouse, config), f"{report.head.run_date}{PAGE}")
    files.write_bytes(path, page(report).encode())
    return path
