"""Misuse of every public class, cell by cell, and what must come of each: `tests/kit/misuse.py`.

A cell is a class, an act and a scene, in a process of its own. Whatever the act, the process ends
with status 0 and nothing on its standard error; before that, all is closed, and no descriptor, no
block of libevent's memory, no base and no exception is left. Besides, an outcome is told, and
`ROWS` says which.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypeAlias

import pytest
import tomli

from tests.kit.misuse import ACTS, BY_NAME, Cell, cells
from tests.kit.operations import OPERATIONS
from tests.kit.support import PATIENCE, ROOT, WARNINGS, run_python

#: For acts what comes of them: in all scenes, or by scene, "*" being all others.
Row: TypeAlias = Mapping[str, str | Mapping[str, str]]

#: What comes of an act unless a row says otherwise. "Raised" is out of the loop, or of what calls
#: back without one; "told" is an `on_error`, once, and of the class itself.
USUALLY = {
    "close inside": "closed",
    "close base first": "closed",
    "fork inside": "stopped",
    "reinit in child": "went on",
    "raise inside": "raised",
    "report inside": "told of {kind}",
    "reinit inside": "went on",
    "exit inside": "",
    "exit busy": "",
}

#: For each public class what comes of misusing it. For a use after close, in a forked child before
#: `reinit`, and in another thread, that is a list of the operations that are not refused, by
#: `ClosedError`, `ForkError` and `ThreadError`: all that Python knows without asking C.
ROWS: dict[str, Row] = tomli.loads(Path(__file__).with_name("misuse.toml").read_text())

#: The classes that are tried one after the other, by one process that forks.
GROUPS = {
    "events": ["EventBase", "Event", "CommonTimeout", "EventConfig", "MonotonicTimer"],
    "buffers": ["Buffer", "BufferCallback", "FileSegment"],
    "bufferevents": ["BufferEvent", "RateLimitGroup", "Listener", "TlsContext"],
    "names": ["DnsBase", "DnsLookup", "AddrInfoLookup", "DnsServer", "DnsServerRequest"],
    "servers": ["HttpServer", "BoundSocket", "HttpServerConnection", "HttpServerRequest"],
    "clients": ["HttpConnection", "HttpRequest", "Headers", "Query", "Uri"],
    "RPCs": ["RpcServer", "Rpc", "RpcPool", "RpcCall", "Message"],
}

CLASSES = [kind for kind in OPERATIONS if kind != "tag"]


def expected(cell: Cell) -> str:
    """Return what must come of *cell*."""
    told = ROWS[cell.kind].get(cell.act, USUALLY.get(cell.act, {}))
    if isinstance(told, str):
        return told.format(kind=cell.kind)
    usual = told.get("*", USUALLY.get(cell.act, "nothing is known"))
    return told.get(cell.scene, usual).format(kind=cell.kind)


def done(kinds: list[str]) -> Iterator[tuple[Cell, int, str, str]]:
    """Yield how each cell of *kinds* has ended."""
    command = [sys.executable, "-X", "dev", *WARNINGS, "-m", "tests.kit.misuse", *kinds]
    environment = {**os.environ, "MALLOC_PERTURB_": "165"}
    ran = subprocess.run(
        command, env=environment, capture_output=True, text=True, cwd=ROOT, timeout=10 * PATIENCE
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    for line in ran.stdout.splitlines():
        kind, act, scene, status, outcome, stderr, _ = json.loads(line)
        yield Cell(kind, act, scene), status, outcome, stderr


@pytest.mark.slow
@pytest.mark.parametrize("group", GROUPS)
def test_each_misuse_ends_as_it_must(group: str) -> None:
    kinds = GROUPS[group]
    ended = list(done(kinds))
    assert [cell for cell, *_ in ended] == list(cells(kinds))
    wrong = [
        f"{cell}: {outcome!r}, not {expected(cell)!r}; status {status}\n{stderr}"
        for cell, status, outcome, stderr in ended
        if (status, outcome, stderr) != (0, expected(cell), "")
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.more
def test_a_sample_of_it_touches_no_memory_that_is_not_its_own() -> None:
    code = "import sys; from tests.kit.misuse import main; sys.argv[1:] = ['--share', '80']; main()"
    run_python(code, valgrind=True)


def test_every_public_class_has_a_row_and_every_row_is_of_what_there_is() -> None:
    assert set(ROWS) == set(CLASSES) == {kind for kinds in GROUPS.values() for kind in kinds}
    for kind, row in ROWS.items():
        assert set(row) <= set(BY_NAME), kind
        for act, told in row.items():
            scenes = set(ACTS[BY_NAME[act]][kind])
            assert isinstance(told, str) or set(told) - {"*"} <= scenes, (kind, act)


@pytest.mark.parametrize("kind", CLASSES)
def test_of_every_class_each_act_is_tried_and_what_comes_of_it_is_known(kind: str) -> None:
    by_act = {act: [cell for cell in cells([kind]) if cell.act == act] for act in BY_NAME}
    for act, found in by_act.items():
        assert found, act
        assert all(expected(cell) != "nothing is known" for cell in found), act


def test_a_cell_that_crashes_is_named_and_takes_no_other_with_it() -> None:
    code = """
        import os
        from tests.kit import misuse

        abort = lambda s, kind: os.abort()
        misuse.ACTS[abort] = misuse.ACTS[misuse.close_base_first]
        misuse.BY_NAME["close base first"] = abort
        misuse.warm_up()
        runner = misuse.Runner()
        print(runner.run(misuse.Cell("Event", "close base first", "pending")).status)
        print(runner.run(misuse.Cell("Event", "close inside", "in its callback"))[1:])
    """
    assert run_python(code) == "-6\n(0, 'closed', '')\n"
