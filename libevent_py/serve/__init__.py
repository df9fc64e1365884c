"""Servers for WSGI and ASGI applications, on an event base.

`run` serves an application; ``python -m libevent_py serve`` does so from a shell. It needs the
extra ``serve``: ``pip install 'libevent_py[serve]'``.

*Parts.* `Config` says what is served, and within what limits. `serve` serves it on given
sockets in one process; processes that share a port each call it. An ``engine.Engine`` (engines/)
speaks HTTP, and a ``worker.Runner`` runs applications: asgi.py on an ``aio.EventLoop``, wsgi.py on
a bare base, inline or with threads. Neither knows more of the other than engine.py says: the engine
calls ``begin(exchange)`` for each request, and the runner answers by the exchange's methods. The
worker makes both, and ends them::

    runner = load(config)                       # asgi.AsgiRunner or wsgi.WsgiRunner
    engine = engines.load(config.http)(runner.base, config, runner)
    runner.start_up()
    engine.listen(sock)                         # for each socket
    runner.run()                                # until SIGTERM, SIGINT, or config.shutdown.set()
      engine.stop_listening()
      engine.finish(…)                          # calls it when no connection is left
      runner.finish(runner.stop)                # and this, when no task or thread is busy
      engine.close()                            # at the time limit, or at a second signal
    runner.shut_down()
    runner.close()

*A further engine* is a subclass of ``engine.Engine`` with one of ``engine.Exchange``, in a module
of its own in engines/, and a line in ``engines.PLACES`` and ``config.ENGINES``. What it passes on
must not be ambiguous: the comments on ``Exchange``'s attributes say what runners rely on.
"""

from __future__ import annotations

from libevent_py.serve.config import Config, Shutdown
from libevent_py.serve.engine import ClientDisconnected
from libevent_py.serve.errors import StartupError
from libevent_py.serve.launch import run
from libevent_py.serve.worker import serve

__all__ = ["ClientDisconnected", "Config", "Shutdown", "StartupError", "run", "serve"]
