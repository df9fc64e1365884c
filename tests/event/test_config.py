"""EventConfig and the environment: what a base is asked for (B1)."""

from __future__ import annotations

import time
import weakref
from typing import Any

import pytest

from libevent_py import (
    ClosedError,
    Event,
    EventBase,
    EventBaseFlag,
    EventConfig,
    EventFeature,
    LibeventError,
    LoopFlag,
)
from tests.kit.flags import NONBLOCK, READ
from tests.kit.peers import Pair
from tests.kit.support import only, run_python


def test_a_configuration_may_be_closed_at_once_and_used_again() -> None:
    """B1: a base copies what it needs."""
    run_python(
        """
        from libevent_py import EventBase, EventConfig, EventFlag

        config = EventConfig(avoid=["epoll"], max_dispatch_callbacks=3)
        bases = [EventBase(config), EventBase(config)]
        config.close()
        config.close()
        for base in bases:
            assert base.method == "poll"
            base.once(lambda fd, what: None)
            base.dispatch()
            base.close()
        """,
        valgrind=True,
    )


def test_a_closed_configuration_says_so(base: EventBase) -> None:
    """B1: C would crash on NULL."""
    config = EventConfig()
    config.close()
    for function in (
        lambda: EventBase(config),
        lambda: config.avoid_method("epoll"),
        lambda: config.require_features(EventFeature.ET),
        lambda: config.set_flag(EventBaseFlag.NOLOCK),
        lambda: config.set_num_cpus_hint(1),
        lambda: config.set_max_dispatch_interval(1),
        lambda: config.__enter__(),
        lambda: config.__init__(),  # type: ignore[misc]
    ):
        with pytest.raises(ClosedError, match="this EventConfig is closed"):
            function()
    with EventConfig() as config, pytest.raises(RuntimeError, match="made already"):
        config.__init__()  # type: ignore[misc]


def test_a_configuration_goes_with_its_last_reference() -> None:
    config = EventConfig(avoid=["epoll"])
    gone = weakref.ref(config)
    del config
    assert gone() is None


def test_methods_are_avoided(backend: str) -> None:
    with only(backend) as base:
        assert base.method == backend
    with (
        EventConfig(avoid=EventBase.supported_methods()) as config,
        pytest.raises(LibeventError, match="event_base_new_with_config"),
    ):
        EventBase(config)


def test_features_are_required() -> None:
    with EventConfig(require=EventFeature.FDS) as config, EventBase(config) as base:
        assert base.method != "epoll"
        assert EventFeature.FDS in base.features
    with (
        EventConfig(require=EventFeature.FDS | EventFeature.ET) as config,
        pytest.raises(LibeventError, match="event_base_new_with_config"),
    ):
        EventBase(config)


#: What each backend of this system can do.
FEATURES = {}
for _name in EventBase.supported_methods():
    with only(_name) as _base:
        FEATURES[_name] = _base.features


def refused(**options: Any) -> str:
    """Return what is said when there is no base of a configuration with *options*."""
    method = options.pop("method", None)
    with EventConfig(**options) as config, pytest.raises(LibeventError) as caught:
        EventBase(config, method=method)
    return str(caught.value)


def described(method: str) -> str:
    return f"{method} ({FEATURES[method].names})"


def test_when_no_backend_will_do_the_error_says_of_each_why() -> None:
    """What each can do is said, too: so one sees what could be asked for instead."""
    methods = EventBase.supported_methods()
    impossible = EventFeature.FDS | EventFeature.ET
    said = refused(require=impossible, avoid=["select"])
    assert said.startswith("event_base_new_with_config: no backend will do: ")
    reasons = said.partition("will do: ")[2].split("; ")
    assert [reason.split()[0] for reason in reasons] == methods
    for method, reason in zip(methods, reasons, strict=True):
        if method == "select":
            assert reason == f"{described(method)} is avoided"
        else:
            missing = impossible & ~FEATURES[method]
            assert reason == f"{described(method)} lacks {missing.names}"


def test_what_the_environment_disables_is_said() -> None:
    printed = run_python(
        """
        from libevent_py import EventBase, EventBaseFlag, EventConfig, LibeventError

        for config in None, EventConfig(avoid=["poll"]):
            try:
                EventBase(config)
            except LibeventError as error:
                print(error)
        with EventBase(EventConfig(flags=EventBaseFlag.IGNORE_ENV)) as base:
            print(base.method)
        try:
            EventBase(method="poll")
        except LibeventError as error:
            print(error)
        """,
        env={f"EVENT_NO{method.upper()}": "1" for method in FEATURES},
        stderr=None,
    ).splitlines()
    every = {
        method: f"{described(method)} is disabled by EVENT_NO{method.upper()} in the environment"
        for method in FEATURES
    }
    begin = "event_base_new_with_config: no backend will do: "
    assert printed == [
        begin + "; ".join(every.values()),
        begin + "; ".join({**every, "poll": f"{described('poll')} is avoided"}.values()),
        next(iter(FEATURES)),
        begin + every["poll"],
    ]


def test_a_base_is_made_with_the_method_asked_for(backend: str) -> None:
    with EventBase(method=backend) as base:
        assert base.method == backend
    with EventBase(method=backend, priorities=3) as base:
        assert (base.method, base.n_priorities) == (backend, 3)


def test_the_method_is_asked_for_besides_what_the_configuration_says(pair: Pair) -> None:
    """The configuration may be closed, changed and used again: it is copied."""
    with EventConfig(flags=EventBaseFlag.NOLOCK, max_dispatch_callbacks=1) as config:
        with EventBase(config, method="poll") as base:
            assert base.method == "poll"
            assert base._thread is not None  # as of NOLOCK
            order: list[int] = []
            for number in range(3):
                base.once(lambda fd, what, number=number: order.append(number))  # type: ignore[misc]
            base.loop(LoopFlag.ONCE | NONBLOCK)
            assert order == [0, 1, 2]
        with EventBase(config) as base:
            assert base.method == EventBase.supported_methods()[0]
    said = refused(method="poll", require=EventFeature.ET)
    assert said.endswith(f"will do: {described('poll')} lacks ET")
    assert refused(method="poll", avoid=["poll"]).endswith(f"{described('poll')} is avoided")


def test_a_limit_of_the_configuration_goes_with_the_method(pair: Pair) -> None:
    assert dispatched({"max_dispatch_callbacks": 2}, pair, "poll").index("urgent") == 2
    assert dispatched({}, pair, "poll").index("urgent") == 5


@pytest.mark.parametrize("method", ["kqueue", "", "EPOLL", b"poll", 1])
def test_an_unknown_method_is_refused_with_the_names_that_there_are(method: Any) -> None:
    names = ", ".join(EventBase.supported_methods())
    with pytest.raises(ValueError, match=f"method must be one of {names}, not {method!r}"):
        EventBase(method=method)
    with EventConfig() as config, pytest.raises(ValueError, match=f"name must be one of {names}"):
        config.avoid_method(method)


def test_flags_are_noted_and_obeyed() -> None:
    flags = EventBaseFlag.PRECISE_TIMER | EventBaseFlag.EPOLL_USE_CHANGELIST
    with EventConfig(flags=flags) as config:
        config.set_flag(EventBaseFlag.NO_CACHE_TIME)
        assert config.flags == flags | EventBaseFlag.NO_CACHE_TIME
        with EventBase(config) as base:
            times = []

            def callback(fd: int, what: int) -> None:
                times.append(base.gettimeofday_cached)
                time.sleep(0.01)
                times.append(base.gettimeofday_cached)

            base.once(callback, timeout=0.01)
            assert base.dispatch() is False
            assert times[1] > times[0]


def dispatched(limits: dict[str, Any], pair: Pair, method: str | None = None) -> list[str]:
    """Return the order in which five active events and one made ready by the first were called."""
    order: list[str] = []
    with (
        EventConfig(**limits) as config,
        EventBase(config, method=method, priorities=3) as base,
    ):
        urgent = Event(base, pair[0], READ, lambda *_: order.append("urgent"), priority=0).add()

        def callback(event: Event, fd: int, what: int) -> None:
            if "event" not in order:
                pair[1].send(b".")
            order.append("event")
            time.sleep(0.001)

        events = [Event(base, -1, 0, callback, priority=1) for _ in range(5)]
        for event in events:
            event.active()
        base.loop(NONBLOCK)
        while len(order) < 6:
            base.loop(NONBLOCK)
        urgent.close()
        pair[0].recv(1)
        return order


def test_after_so_many_callbacks_the_loop_looks_for_new_events(pair: Pair) -> None:
    assert dispatched({}, pair).index("urgent") == 5
    assert dispatched({"max_dispatch_callbacks": 2}, pair).index("urgent") == 2
    assert dispatched({"max_dispatch_callbacks": 2, "min_priority": 2}, pair).index("urgent") == 5


def test_after_so_much_time_the_loop_looks_for_new_events(pair: Pair) -> None:
    precise = EventBaseFlag.PRECISE_TIMER  # the other clock ticks every few milliseconds
    limits = {"flags": precise, "max_dispatch_interval": 0.0001}
    assert dispatched(limits, pair).index("urgent") == 1
    assert dispatched({**limits, "max_dispatch_interval": 1000}, pair).index("urgent") == 5


@pytest.mark.parametrize(
    ("options", "kind", "named"),
    [
        ({"avoid": "epoll"}, TypeError, "avoid"),
        ({"avoid": 5}, TypeError, "avoid"),
        ({"avoid": ["kqueue", "devpoll"]}, ValueError, "name must be one of .*not 'kqueue'"),
        ({"avoid": [5]}, ValueError, "name"),
        ({"require": True}, TypeError, "features"),
        ({"require": 1 << 20}, ValueError, "features"),
        ({"require": "ET"}, TypeError, "features"),
        ({"flags": 1 << 20}, ValueError, "flag"),
        ({"flags": "NOLOCK"}, TypeError, "flag"),
        ({"max_dispatch_interval": -1}, ValueError, "interval"),
        ({"max_dispatch_interval": float("nan")}, ValueError, "interval"),
        ({"max_dispatch_interval": float("inf")}, ValueError, "interval"),
        ({"max_dispatch_interval": "soon"}, TypeError, "interval"),
        ({"max_dispatch_callbacks": -2}, ValueError, "max_callbacks"),
        ({"max_dispatch_callbacks": "all"}, TypeError, "max_callbacks"),
        ({"max_dispatch_callbacks": 2**31}, ValueError, "max_callbacks"),
        ({"min_priority": -1}, ValueError, "min_priority"),
        ({"min_priority": 256}, ValueError, "min_priority"),
        ({"min_priority": "low"}, TypeError, "min_priority"),
        ({"cpus_hint": -1}, ValueError, "cpus"),
        ({"cpus_hint": "two"}, TypeError, "cpus"),
    ],
)
def test_a_bad_configuration_names_the_argument(
    options: dict[str, Any], kind: type[Exception], named: str
) -> None:
    with pytest.raises(kind, match=named):
        EventConfig(**options)


def test_the_number_of_processors_is_taken() -> None:
    with EventConfig(cpus_hint=2) as config:
        config.set_num_cpus_hint(4)


def test_the_environment_is_obeyed_unless_told_otherwise() -> None:
    """B1: EVENT_NOEPOLL, EVENT_NOPOLL and so on take a backend away."""
    code = """
        from libevent_py import EventBase, EventBaseFlag, EventConfig
        with EventBase() as base:
            print(base.method)
        with EventConfig(flags=EventBaseFlag.IGNORE_ENV) as config, EventBase(config) as base:
            print(base.method)
        """
    preferred = EventBase.supported_methods()[0]
    assert run_python(code) == f"{preferred}\n{preferred}\n"
    others = EventBase.supported_methods()[1:]
    env = {f"EVENT_NO{preferred.upper()}": "1"}
    assert run_python(code, env=env) == f"{others[0]}\n{preferred}\n"


def test_an_environment_without_any_backend_is_an_error_that_is_logged() -> None:
    run_python(
        """
        import os
        from libevent_py import EventBase, LibeventError, log

        logged = []
        log.set_log_callback(lambda severity, message: logged.append(message))
        before = os.listdir("/proc/self/fd")
        try:
            EventBase()
        except LibeventError as error:
            assert "event_base_new_with_config" in str(error)
        else:
            raise AssertionError
        assert any("no event mechanism available" in message for message in logged), logged
        assert os.listdir("/proc/self/fd") == before
        """,
        env={f"EVENT_NO{name.upper()}": "1" for name in EventBase.supported_methods()},
    )


def test_the_environment_s_other_words_are_obeyed_and_nothing_is_printed() -> None:
    """B1: EVENT_SHOW_METHOD logs; EVENT_PRECISE_TIMER takes a timerfd."""
    printed = run_python(
        """
        import os
        from libevent_py import EventBase, log

        log.set_log_callback(lambda severity, message: print(severity.name, message))
        with EventBase() as base:
            base.once(lambda fd, what: None, timeout=0.01)
            base.dispatch()
            links = [os.readlink(f"/proc/self/fd/{fd}") for fd in range(3, 12)
                     if os.path.exists(f"/proc/self/fd/{fd}")]
            assert any("timerfd" in link for link in links) or base.method != "epoll", links
        """,
        env={
            "EVENT_SHOW_METHOD": "1",
            "EVENT_PRECISE_TIMER": "1",
            "EVENT_EPOLL_USE_CHANGELIST": "1",
        },
    )
    assert printed.startswith("MSG libevent using: ")
