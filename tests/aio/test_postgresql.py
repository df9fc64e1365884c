"""asyncpg, unmodified on `aio.EventLoop`, with Debian's PostgreSQL."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import asyncpg
import pytest

from tests.kit.coroutines import here, runs, soon
from tests.kit.postgresql import Server, serving
from tests.kit.support import PATIENCE

pytestmark = [pytest.mark.more]
if sys.version_info < (3, 11):  # a transport by TLS that the peer has closed, on any loop
    closed = "ignore:unclosed transport <asyncio.sslproto:ResourceWarning"
    pytestmark.append(pytest.mark.filterwarnings(closed))

#: More rows than any buffer takes.
MANY = 20_000
WAYS = "unix", "tcp", "tls"
#: After how many seconds a query is cancelled that has begun by then.
SOON = 0.5


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving() as server:
        yield server


@pytest.fixture(params=WAYS)
def dsn(request: pytest.FixtureRequest, server: Server) -> str:
    """How a client connects, in each way."""
    return server.dsn(request.param)


def objects() -> tuple[int, int, int]:
    """Return how many objects the loop's base has, may call, and is closing."""
    base = here()
    return len(base._ledger), len(base._live), len(base._closings)


async def seen(what: Callable[[], Any]) -> None:
    """Wait until *what* is true."""
    end = asyncio.get_running_loop().time() + PATIENCE
    while not what():
        assert asyncio.get_running_loop().time() < end
        await asyncio.sleep(0.001)


@contextlib.asynccontextmanager
async def connected(dsn: str, **options: Any) -> AsyncIterator[asyncpg.Connection]:
    """Connect to *dsn*; afterwards nothing is left of the connection."""
    before = objects()
    connection = await asyncpg.connect(dsn, timeout=PATIENCE, **options)
    try:
        yield connection
    finally:
        await connection.close(timeout=PATIENCE)
    await seen(lambda: objects() == before)


async def busy(dsn: str, pid: int, query: str) -> bool:
    """Tell whether the server's process *pid* runs *query*."""
    # Not by `connected`: what asks for a query's cancellation may come and go meanwhile.
    other = await asyncpg.connect(dsn, timeout=PATIENCE)
    row = await other.fetchrow("select state, query from pg_stat_activity where pid = $1", pid)
    await other.close(timeout=PATIENCE)
    return tuple(row) == ("active", query)


async def until_busy(dsn: str, pid: int, query: str, is_so: bool = True) -> None:
    end = asyncio.get_running_loop().time() + PATIENCE
    while await busy(dsn, pid, query) is not is_so:
        assert asyncio.get_running_loop().time() < end, query


@runs
async def test_statements_are_prepared_once_and_run_often(dsn: str) -> None:
    async with connected(dsn) as connection:
        statement = await connection.prepare("select $1::int * 2, $2::text, $3::bytea")
        for n in range(200):
            text, octets = "é" * n, bytes(range(256)) * n
            assert tuple(await statement.fetchrow(n, text, octets)) == (2 * n, text, octets)
        with pytest.raises(asyncpg.DataError):
            await statement.fetch("no number", "", b"")
        with pytest.raises(asyncpg.DivisionByZeroError):
            await connection.fetchval("select 1 / $1::int", 0)
        assert await connection.fetchval("select repeat('x', 10000000)") == "x" * 10_000_000
        await connection.execute("create temporary table t (n int, s text)")
        await connection.executemany(
            "insert into t values ($1, $2)", [(n, str(n)) for n in range(MANY)]
        )
        assert await connection.fetchval("select sum(n) from t") == MANY * (MANY - 1) // 2


@runs
async def test_a_cursor_streams_what_its_reader_takes(dsn: str) -> None:
    async with connected(dsn) as connection:
        asks = "select n, repeat('x', 1000) from generate_series(0, $1::int - 1) as n"
        async with connection.transaction():
            rows = [row[0] async for row in connection.cursor(asks, MANY, prefetch=97)]
        assert rows == [*range(MANY)]
        async with connection.transaction():
            async for row in connection.cursor(asks, MANY, prefetch=10):
                if row[0] == 25:
                    break
        async with connection.transaction():
            cursor = await connection.cursor(asks, MANY)
            await cursor.forward(MANY - 3)
            assert [row[0] for row in await cursor.fetch(10)] == [*range(MANY - 3, MANY)]


#: The lines of a table, as they are copied.
LINES = [f"{n},{'y' * (n % 700 + 1)}\n".encode() for n in range(MANY)]


@runs
async def test_tables_are_copied_to_the_server(dsn: str) -> None:
    async def source() -> AsyncIterator[bytes]:
        for at in range(0, MANY, 1000):
            yield b"".join(LINES[at : at + 1000])
            await asyncio.sleep(0)

    async def fails() -> AsyncIterator[bytes]:
        yield LINES[0]
        raise ZeroDivisionError

    async with connected(dsn) as connection:
        await connection.execute("create temporary table t (n int, s text)")
        done = await connection.copy_to_table("t", source=source(), format="csv")
        assert done == f"COPY {MANY}"
        length = await connection.fetchval("select sum(length(n || ',' || s || '.')) from t")
        assert length == sum(map(len, LINES))
        records = [(n, None if n % 2 else "z") for n in range(MANY)]
        await connection.copy_records_to_table("t", records=records)
        assert await connection.fetchval("select count(*) from t") == 2 * MANY
        with pytest.raises(ZeroDivisionError):
            await connection.copy_to_table("t", source=fails(), format="csv")
        assert await connection.fetchval("select count(*) from t") == 2 * MANY


@runs
async def test_tables_are_copied_from_the_server(dsn: str) -> None:
    # There TLS gives data within resume_reading(), which asyncpg's protocol can't bear.
    if sys.version_info < (3, 11) and "require" in dsn:
        pytest.skip("asyncpg's own bug, on asyncio's loop, too: data come as it resumes reading")
    got: list[bytes] = []

    async def taken(data: bytes) -> None:
        got.append(data)
        await asyncio.sleep(0)

    async with connected(dsn) as connection:
        asks = "select n, repeat('y', n % 700 + 1) from generate_series(0, $1::int - 1) as n"
        await connection.copy_from_query(asks, MANY, output=taken, format="csv")
        assert b"".join(got) == b"".join(LINES)


@runs
async def test_a_query_is_cancelled_in_the_middle(dsn: str) -> None:
    async with connected(dsn) as connection:
        pid = connection.get_server_pid()
        for query in ("select pg_sleep(600)", "select count(*) from generate_series(1, 1e11)"):
            asking = await soon(connection.fetchval(query))
            await until_busy(dsn, pid, query)
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            assert await connection.fetchval("select 1") == 1
            await until_busy(dsn, pid, query, False)
        # And anywhere, between its first byte and its last.
        cancelled = 0
        for turns in range(60):
            asking = asyncio.ensure_future(
                connection.fetch("select n from generate_series(1, 10000) as n")
            )
            for _ in range(turns):
                await asyncio.sleep(0)
            asking.cancel()
            try:
                assert len(await asking) == 10_000
            except asyncio.CancelledError:
                cancelled += 1
            assert await connection.fetchval("select $1::int", turns) == turns
        assert cancelled


@runs
async def test_a_query_is_cancelled_after_its_time(dsn: str) -> None:
    async with connected(dsn) as connection:
        pid, query = connection.get_server_pid(), "select pg_sleep(600)"
        # A server that hasn't begun yet would not be stopped: so it has time to begin.
        sleeps = await connection.prepare(query)
        with pytest.raises(asyncio.TimeoutError):
            await sleeps.fetchval(timeout=SOON)
        await until_busy(dsn, pid, query, False)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(sleeps.fetchval(), SOON)
        await until_busy(dsn, pid, query, False)
        await connection.execute("set statement_timeout = 50")
        with pytest.raises(asyncpg.QueryCanceledError):
            await connection.fetchval(query)
        assert await connection.fetchval("select 1") == 1


@runs
async def test_a_connection_that_the_server_closes_is_told_of(dsn: str) -> None:
    before = objects()
    async with connected(dsn) as other:
        ends: list[object] = []
        for query in (None, "select pg_sleep(600)"):
            connection = await asyncpg.connect(dsn, timeout=PATIENCE)
            connection.add_termination_listener(ends.append)
            pid = connection.get_server_pid()
            asking = await soon(connection.fetchval(query)) if query else None
            if query:
                await until_busy(dsn, pid, query)
            assert await other.fetchval("select pg_terminate_backend($1)", pid)
            if asking is not None:
                gone = asyncpg.ConnectionDoesNotExistError
                with pytest.raises(gone, match="terminating connection"):
                    await asking
            await seen(connection.is_closed)
            with pytest.raises(asyncpg.InterfaceError):
                await connection.fetchval("select 1")
        assert len(ends) == 2
    await seen(lambda: objects() == before)


@runs
async def test_what_is_notified_reaches_those_who_listen(dsn: str) -> None:
    got: list[str] = []

    def told(_connection: object, _pid: int, channel: str, payload: str) -> None:
        assert channel == "news"
        got.append(payload)

    async with connected(dsn) as listener, connected(dsn) as speaker:
        await listener.add_listener("news", told)
        for n in range(100):
            await speaker.execute(f"notify news, '{n}'")
        await seen(lambda: len(got) == 100)
        assert got == [str(n) for n in range(100)]
        assert await listener.fetchval("select 1") == 1
        await listener.remove_listener("news", told)
        await speaker.execute("notify news, 'unheard'")
        assert await listener.fetchval("select 1") == 1
        assert len(got) == 100


@runs
async def test_a_pool_replaces_what_is_cancelled_and_closed(dsn: str) -> None:
    before = objects()
    async with asyncpg.create_pool(dsn, min_size=2, max_size=5) as pool:

        async def ask(n: int) -> int:
            async with pool.acquire(timeout=PATIENCE) as connection:
                if n % 7 == 3:
                    await connection.fetchval("select pg_sleep(2)")
                if n % 7 == 5:
                    own = connection.get_server_pid()
                    with pytest.raises((OSError, asyncpg.PostgresError)):
                        await connection.fetchval("select pg_terminate_backend($1)", own)
                    return n
                return int(await connection.fetchval("select $1::int", n))

        tasks = [asyncio.ensure_future(ask(n)) for n in range(70)]
        for n, task in enumerate(tasks):
            if n % 7 == 3:  # while it waits for a connection, or for an answer
                asyncio.get_running_loop().call_later(0.002 * n, task.cancel)
        results = await asyncio.gather(*tasks, return_exceptions=True)
    for n, result in enumerate(results):
        assert isinstance(result, asyncio.CancelledError) if n % 7 == 3 else result == n
    await seen(lambda: objects() == before)


@runs
async def test_tls_verifies_the_server(server: Server) -> None:
    dsn = server.dsn("tls").partition("?")[0]

    before = objects()
    context = ssl.create_default_context(cafile=server.authority)
    async with connected(dsn, ssl=context) as connection:
        asks = "select ssl, version from pg_stat_ssl where pid = pg_backend_pid()"
        assert tuple(await connection.fetchrow(asks)) == (True, "TLSv1.3")
    async with connected(server.dsn("tls")) as connection:
        assert (await connection.fetchrow(asks))[0] is True
    async with connected(server.dsn("tcp")) as connection:
        assert (await connection.fetchrow(asks))[0] is False
    with pytest.raises(ssl.SSLCertVerificationError):
        await asyncpg.connect(dsn, ssl=ssl.create_default_context(), timeout=PATIENCE)
    await seen(lambda: objects() == before)


@runs
async def test_connecting_is_cancelled_and_refused(dsn: str, server: Server) -> None:
    before = objects()
    cancelled = 0
    for turns in range(40):
        connecting = asyncio.ensure_future(asyncpg.connect(dsn, timeout=PATIENCE))
        for _ in range(turns):
            await asyncio.sleep(0)
        connecting.cancel()
        try:
            await (await connecting).close()
        except asyncio.CancelledError:
            cancelled += 1
    assert cancelled
    with pytest.raises(asyncpg.InvalidCatalogNameError):
        await asyncpg.connect(dsn, database="none", timeout=PATIENCE)
    with pytest.raises(OSError):
        await asyncpg.connect("postgresql://tests@127.0.0.1:1/postgres", timeout=PATIENCE)
    await seen(lambda: objects() == before)
