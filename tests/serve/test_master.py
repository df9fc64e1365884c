"""The master and its workers: real processes, which crash, are replaced and end."""

from __future__ import annotations

import concurrent.futures
import contextlib
import http.client
import json
import os
import re
import signal
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from libevent_py.serve import Config
from libevent_py.serve.master import Fleet, supervise
from tests.kit.masters import APP, Served, hurried, is_alive, mastered
from tests.kit.serving import wait_until
from tests.kit.support import PATIENCE

#: Each starts several processes.
pytestmark = pytest.mark.slow

TWO = ("--workers", "2")


def counted(path: Path) -> Any:
    """Return what the socket at *path* tells."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(PATIENCE)
        sock.connect(str(path))
        return json.loads(sock.makefile().read())


@contextlib.contextmanager
def asking(served: Served, path: str) -> Any:
    """Ask for *path* in a thread; the answer is the future's result."""
    served.port  # noqa: B018  (it is served)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        yield pool.submit(served.get, path)


# Crashes.


def test_a_worker_that_is_killed_is_replaced(tmp_path: Path) -> None:
    with mastered(tmp_path, *TWO) as served:
        assert served.get().startswith("200 first")
        before = served.workers()
        assert len(before) == 2
        os.kill(before[0], signal.SIGKILL)
        served.until(f"ERROR worker {before[0]} has been killed by SIGKILL")
        served.until(r"worker \d+ begins", times=3)
        assert served.get().startswith("200 first")
        wait_until(lambda: len(served.workers()) == 2)
        assert before[1] in served.workers() and before[0] not in served.workers()
        served.send(signal.SIGTERM)
        assert served.wait() == 0


def test_a_client_waits_while_there_is_no_worker(tmp_path: Path) -> None:
    with mastered(tmp_path, "--workers", "1") as served:
        with pytest.raises(http.client.RemoteDisconnected):
            served.get("/die")
        assert served.get().startswith("200 first")  # the kernel keeps it meanwhile
        served.until("has ended with status 7")


def test_workers_that_crash_again_and_again_come_later_and_later(tmp_path: Path) -> None:
    app = "import os; os._exit(5)"
    constants = "FIRST_DELAY=0.01 MOST_CRASHES=4"
    with hurried(tmp_path, constants, "--workers", "1", app=app) as served:
        assert served.wait() == 1
        said = served.said()
    delays = re.findall(r"the next worker in its place begins in ([\d.]+) s", said)
    assert delays == ["0.01", "0.02", "0.04"]
    assert said.count("has ended with status 5") == 4
    assert "CRITICAL 4 workers have crashed one after the other: giving up" in said


@pytest.mark.parametrize(
    ("app", "text"),
    [
        ("1/0", "'app:app' can't be imported: ZeroDivisionError"),
        ("", "has no attribute 'app'"),
        ("async def app(scope, receive, send): raise OSError('no disk')", "no disk"),
    ],
)
def test_an_application_that_cannot_be_served_ends_the_master(
    tmp_path: Path, app: str, text: str
) -> None:
    with mastered(tmp_path, *TWO, "--lifespan", "on", app=app) as served:
        assert served.wait() == 1
        assert text in served.said()
        assert "serving" not in served.said()


# Reloading.


@pytest.mark.parametrize("engine", ["httptools", "evhttp"])
def test_sighup_under_load_fails_no_request(tmp_path: Path, engine: str) -> None:
    with mastered(tmp_path, *TWO, "--http", engine) as served:
        port, ended, answers = served.port, threading.Event(), []

        def ask() -> None:
            while not ended.is_set():
                answers.append(served.get())

        def ask_on() -> None:
            """Ask on a connection that stays; one that was idle may be closed, as in any server."""
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
            while not ended.is_set():
                for again in range(3):
                    try:
                        connection.request("GET", "/")
                        answer = connection.getresponse()
                        break
                    except (http.client.RemoteDisconnected, ConnectionError):
                        connection.close()
                        assert again < 2
                answers.append(f"{answer.status} {answer.read().decode()}")
            connection.close()

        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            asked = [pool.submit(one) for one in (ask, ask, ask, ask_on)]
            try:
                for number in range(1, 4):
                    (tmp_path / "app.py").write_text(APP.replace("first", f"value{number}"))
                    served.send(signal.SIGHUP)
                    served.until("new workers serve, the old ones end", times=number)
                wait_until(lambda: answers[-1].startswith("200 value3"))
            finally:
                ended.set()
            for one in asked:
                one.result()
        values = {answer.rpartition(" ")[0] for answer in answers}
        assert values == {"200 first", "200 value1", "200 value2", "200 value3"}
        served.until(r"INFO worker \d+ has ended", times=6)
        assert len(served.workers()) == 2


def test_a_reload_that_fails_leaves_the_old_workers(tmp_path: Path) -> None:
    with mastered(tmp_path, *TWO) as served:
        served.get()
        before = served.workers()
        (tmp_path / "app.py").write_text("1/0")
        served.send(signal.SIGHUP)
        served.until("reloading has failed, the 2 old workers go on")
        wait_until(lambda: sorted(served.workers()) == sorted(before))
        assert served.get().startswith("200 first")
        (tmp_path / "app.py").write_text(APP.replace("first", "mended"))
        served.send(signal.SIGHUP)
        served.until("2 new workers serve")
        wait_until(lambda: served.get().startswith("200 mended"))


@pytest.fixture(params=["watchfiles", "by looking"])
def watching(tmp_path: Path, request: pytest.FixtureRequest) -> dict[str, str]:
    """Return an environment in which files are watched in either of the two ways."""
    (tmp_path / "here").mkdir()
    if request.param == "watchfiles":
        return {}
    # As where the extra isn't installed; and on a machine that has much to do.
    (tmp_path / "here" / "watchfiles.py").write_text(
        "import time; time.sleep(0.3); raise ModuleNotFoundError"
    )
    return {"PYTHONPATH": str(tmp_path / "here")}


def test_workers_are_replaced_when_a_file_changes(tmp_path: Path, watching: dict[str, str]) -> None:
    arguments = "--reload", "--reload-dir", str(tmp_path / "here")
    with mastered(tmp_path / "here", *arguments, env=watching) as served:
        served.until("watching the application's files")
        assert served.get().startswith("200 first")
        (tmp_path / "here" / "app.py").write_text("1/")  # while somebody types
        served.until(r"app\.py has changed")
        served.until("reloading has failed, the 1 old workers go on")
        assert served.get().startswith("200 first")
        (tmp_path / "here" / "app.py").write_text(APP.replace("first", "second"))
        served.until("1 new workers serve")
        wait_until(lambda: served.get().startswith("200 second"))
        served.send(signal.SIGTERM)
        assert served.wait() == 0


def test_with_reload_an_application_may_be_broken_at_first(
    tmp_path: Path, watching: dict[str, str]
) -> None:
    """It may be mended at once, too, before its files are watched."""
    with mastered(tmp_path / "here", "--reload", app="1/0", env=watching) as served:
        served.until("waiting for one of the application's files to change")
        (tmp_path / "here" / "app.py").write_text(APP)
        assert served.get().startswith("200 first")


# The end.


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_requests_in_flight_are_finished(tmp_path: Path, number: int) -> None:
    with mastered(tmp_path, *TWO) as served, asking(served, "/slow") as asked:
        port = served.port
        time.sleep(0.2)
        served.send(number)
        served.until("ending")
        assert asked.result().startswith("200 first")
        assert served.wait() == 0
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))


def test_a_signal_to_the_whole_group_is_one_wish(tmp_path: Path) -> None:
    """A terminal sends SIGINT to all of its processes, systemd SIGTERM to all of a service."""
    for number in signal.SIGINT, signal.SIGTERM:
        with mastered(tmp_path, *TWO) as served, asking(served, "/slow") as asked:
            time.sleep(0.2)
            workers = served.workers()
            served.send(number)
            served.until("ending")
            time.sleep(0.1)  # until the workers know
            for worker in workers:
                with contextlib.suppress(ProcessLookupError):  # one of them is idle
                    os.kill(worker, number)
            assert asked.result().startswith("200 first")
            assert served.wait() == 0


def test_what_is_not_finished_in_time_is_given_up(tmp_path: Path) -> None:
    with mastered(tmp_path, *TWO, "--graceful-timeout", "0.2") as served:
        with asking(served, "/for-ever") as asked:
            time.sleep(0.2)
            served.send(signal.SIGTERM)
            assert served.wait() == 0
            with pytest.raises(http.client.RemoteDisconnected):
                asked.result()
        assert "is killed" not in served.said()  # the worker itself has given up


def test_a_worker_that_does_not_end_is_killed(tmp_path: Path) -> None:
    arguments = "--workers", "1", "--threads", "0", "--graceful-timeout", "0.1"
    with hurried(tmp_path, "GRACE=0.2", *arguments) as served:
        with asking(served, "/for-ever") as asked:
            time.sleep(0.2)
            served.send(signal.SIGTERM)
            assert served.wait() == 0
            with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError)):
                asked.result()
        assert "is killed: it has not ended in time" in served.said()


@pytest.mark.parametrize("numbers", [[signal.SIGTERM] * 2, [signal.SIGQUIT]])
def test_a_second_signal_or_sigquit_ends_at_once(tmp_path: Path, numbers: list[int]) -> None:
    with mastered(tmp_path, *TWO) as served, asking(served, "/for-ever") as asked:
        time.sleep(0.2)
        workers = served.workers()
        for number in numbers:
            served.send(number)
            served.until("ending")
        assert served.wait() == 0
        assert not any(map(is_alive, workers))
        with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError)):
            asked.result()


def test_workers_end_after_a_master_that_was_killed(tmp_path: Path) -> None:
    with mastered(tmp_path, *TWO) as served:
        served.get()
        workers = served.workers()
        served.send(signal.SIGKILL)
        wait_until(lambda: not any(map(is_alive, workers)))


def test_what_an_application_does_at_exit_is_done(tmp_path: Path) -> None:
    app = APP + "import atexit; atexit.register(print, 'at exit', os.getpid())"
    with mastered(tmp_path, *TWO, app=app) as served:
        served.get()
        workers = served.workers()
        served.send(signal.SIGTERM)
        assert served.wait() == 0
        assert sorted(re.findall(r"at exit (\d+)", served.said())) == sorted(map(str, workers))


# Counters.


def test_the_counters_are_told_at_a_path_and_in_the_log(tmp_path: Path) -> None:
    path = tmp_path / "stats"
    with mastered(tmp_path, *TWO, "--stats", str(path)) as served:
        for _ in range(3):
            served.get()
        served.get("/404")
        with contextlib.suppress(http.client.RemoteDisconnected):
            served.get("/die")
        served.until("has ended with status 7")
        wait_until(lambda: counted(path)["2xx"] == 3)
        found = counted(path)
        assert (found["pid"], found["generation"], found["restarts"]) == (served.pid, 1, 1)
        assert found["4xx"] == 1
        assert found["body_bytes_sent"] >= 4 * len("first 1")
        with socket.create_connection(("127.0.0.1", served.port)):
            wait_until(lambda: counted(path)["connections"] == 1)
        wait_until(lambda: counted(path)["connections"] == 0)
        wait_until(lambda: [one["state"] for one in counted(path)["workers"]] == ["serving"] * 2)
        assert sorted(one["pid"] for one in counted(path)["workers"]) == sorted(served.workers())
        assert path.stat().st_mode & 0o777 == 0o660
        served.send(signal.SIGUSR1)
        logged = json.loads(served.until("INFO stats (.*)"))
        assert logged["2xx"] == 3
        served.send(signal.SIGTERM)
        assert served.wait() == 0
    assert not path.exists()


def test_the_counters_can_be_had_by_the_log_alone(tmp_path: Path) -> None:
    with mastered(tmp_path, "--stats") as served:
        served.get()

        def logged() -> Any:
            served.send(signal.SIGUSR1)
            return json.loads(served.until("INFO stats (.*)"))

        wait_until(lambda: logged()["accepted"] == 1)


# Sockets, and what is refused.


def test_each_worker_may_have_a_socket_of_its_own(tmp_path: Path) -> None:
    with mastered(tmp_path, "--workers", "3", "--reuse-port") as served:
        pids = {served.get().split()[2] for _ in range(60)}
        assert pids == set(map(str, served.workers()))


def test_a_unix_socket_is_shared_and_removed(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with mastered(tmp_path, *TWO, "--unix", str(path)) as served:
        served.until("serving")
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(path))
            sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
            assert sock.makefile().readline() == "HTTP/1.1 200 OK\n"
        served.send(signal.SIGTERM)
        assert served.wait() == 0
    assert not path.exists()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--workers", "0"], "workers must be at least 1, not 0"),
        (["--reload-dir", "nowhere"], "reload_dirs: there is no directory 'nowhere'"),
        (["--unix", "s", "--reuse-port"], "--reuse-port goes with --bind alone"),
        (["--fd", "web"], "LISTEN_FDNAMES must have 'web' once, not 0 times"),
        (["--fd", "999"], "fd 999 is no socket"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path: Path, arguments: list[str], text: str) -> None:
    with mastered(tmp_path, *arguments) as served:
        assert served.wait() == 2
        assert text in served.said()


def test_a_path_for_counters_that_cannot_be_bound_is_told(tmp_path: Path) -> None:
    with mastered(tmp_path, "--stats", str(tmp_path / "none" / "stats")) as served:
        assert served.wait() == 1
        assert "none/stats: No such file or directory" in served.said()


def test_a_fleet_says_what_is_wrong_with_it() -> None:
    with pytest.raises(TypeError, match="workers must be an integer, not 'two'"):
        Fleet(workers="two")  # type: ignore[arg-type]
    sock = socket.create_server(("127.0.0.1", 0))
    with sock, pytest.raises(ValueError, match="one list for all workers or 3, none empty, not 2"):
        supervise(Config("app:app"), Fleet(workers=3), [[sock], [sock]])
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        one = pool.submit(supervise, Config("app:app"), Fleet(), [[sock]])
        with pytest.raises(RuntimeError, match="needs the main thread"):
            one.result(PATIENCE)
