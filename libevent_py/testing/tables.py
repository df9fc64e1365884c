"""The table of tests and backends that ``pytest --libevent-table`` shows at the end."""

from __future__ import annotations

import pytest

from libevent_py.event.base import EventBase

#: What a report is marked with.
BACKEND = "libevent_backend"

WORDS = {"passed": "passed", "failed": "FAILED", "skipped": "skipped"}


class Table:
    """Collect what has come of each test on each backend."""

    def __init__(self) -> None:
        self._rows: dict[str, dict[str, str]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note a report, the worst of a test."""
        backend = dict(report.user_properties).get(BACKEND)
        if backend is None or (report.passed and report.when != "call"):
            return
        row = self._rows.setdefault(row_of(report.nodeid, str(backend)), {})
        if row.get(str(backend)) != WORDS["failed"]:
            row[str(backend)] = WORDS[report.outcome]

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Write the table."""
        terminalreporter.section("libevent's backends")
        for line in lines(self._rows):
            terminalreporter.write_line(line)


def row_of(nodeid: str, backend: str) -> str:
    """Return the name of a test without its backend, by which pytest knows it."""
    name, bracket, ids = nodeid.partition("[")
    parts = ids.removesuffix("]").split("-")
    if backend in parts:
        parts.remove(backend)
    left = "-".join(parts)
    return f"{name}[{left}]" if bracket and left else name


def lines(rows: dict[str, dict[str, str]]) -> list[str]:
    """Return the table's lines."""
    if not rows:
        return ["no test has used event_base on a backend that it names"]
    used = {backend for row in rows.values() for backend in row}
    backends = [name for name in EventBase.supported_methods() if name in used]
    backends += sorted(used - {*backends})
    wide = max(map(len, rows))
    head = " ".join([" " * wide, *(f"{name:>8}" for name in backends)])
    return [
        head.rstrip(),
        *(
            " ".join([f"{name:<{wide}}", *(f"{row.get(each, '-'):>8}" for each in backends)])
            for name, row in rows.items()
        ),
    ]
