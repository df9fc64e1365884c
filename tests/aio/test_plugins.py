"""Tests under pytest-asyncio and anyio's plugin run on the loop, as docs/asyncio.md says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.kit.pytests import pytest_of
from tests.kit.support import ROOT

EXAMPLES = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "asyncio.md").read_text(), re.DOTALL)

#: What a test and its fixtures do under either plugin: WAY marks them, MAKES makes fixtures.
CODE = """
import asyncio
import pytest
import pytest_asyncio
from libevent_py import BufferEvent, aio

pytestmark = pytest.mark.WAY

@MAKES.fixture
async def streams():
    loop = asyncio.get_running_loop()
    assert isinstance(loop, aio.EventLoop)
    one, other = map(aio.Stream, BufferEvent.pair(loop.base))
    async with one, other:
        yield one, other, loop

async def test_a_fixture_and_its_test_are_on_one_loop(streams):
    one, other, loop = streams
    assert asyncio.get_running_loop() is loop
    one.write(b"hello")
    assert await other.readexactly(5) == b"hello"

async def test_servers_and_tasks():
    async def serve(reader, writer):
        writer.write(await reader.readline())
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"line\\n")
        assert await asyncio.wait_for(reader.read(), 60) == b"line\\n"
        writer.close()
        await writer.wait_closed()

async def test_one_that_fails():
    await asyncio.sleep(0)
    assert isinstance(asyncio.get_running_loop(), asyncio.Event)
"""


def shown(name: str) -> str:
    """Return the example that has *name*."""
    found: list[str] = [example for example in EXAMPLES if f"def {name}" in example]
    return found[0]


@pytest.mark.parametrize(
    ("plugin", "configures"),
    [
        ("asyncio", "pytest_asyncio_loop_factories"),
        ("asyncio", "event_loop_policy"),
        ("anyio", "anyio_backend"),
    ],
)
def test_a_plugin_s_tests_and_fixtures_run_on_the_loop(
    tmp_path: Path, plugin: str, configures: str
) -> None:
    (tmp_path / "conftest.py").write_text(shown(configures))
    makes = "pytest_asyncio" if plugin == "asyncio" else "pytest"
    options = ["-o", "asyncio_default_fixture_loop_scope=function"] if plugin == "asyncio" else []
    if configures == "event_loop_policy":
        options += ["-W", "ignore:Overriding:pytest.PytestDeprecationWarning"]
    code = CODE.replace("WAY", plugin).replace("MAKES", makes)
    ran = pytest_of(tmp_path, code, *options, plugins=[plugin])
    assert ran.outcomes == {
        "test_a_fixture_and_its_test_are_on_one_loop": "passed",
        "test_servers_and_tasks": "passed",
        "test_one_that_fails": "failed",
    }, ran.said
