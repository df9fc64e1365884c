"""Finding an application, and what kind it is."""

from __future__ import annotations

import importlib
import inspect
from typing import TYPE_CHECKING, Any

from libevent_py.serve.config import Config
from libevent_py.serve.errors import StartupError, missing

if TYPE_CHECKING:
    from libevent_py.serve.worker import Runner


def load(config: Config) -> Runner:
    """Return what runs the application of *config*; raise `StartupError` if there is none."""
    application = found(config.app)
    interface = config.interface
    if interface == "auto":
        interface = "asgi" if is_asgi(application) else "wsgi"
    if interface == "asgi":
        return asgi(application, config)
    from libevent_py.serve.wsgi import WsgiRunner

    return WsgiRunner(application, config)


def asgi(application: Any, config: Config) -> Runner:
    """Return what runs an ASGI *application*; `ImportError` says which extra is missing."""
    try:
        from libevent_py.serve.asgi import AsgiRunner
    except ModuleNotFoundError as error:
        raise missing("ASGI", error) from error
    return AsgiRunner(application, config)


def found(app: Any) -> Any:
    """Return the application that *app* is, or names as "module:attribute"."""
    if not isinstance(app, str):
        return app
    module, _, attribute = app.partition(":")
    if not module or not attribute:
        raise StartupError(f'app must be "module:attribute", not {app!r}')
    try:
        value: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise StartupError(f"{app!r} can't be imported: {error}") from error
        raise StartupError(f"{app!r}: there is no module {error.name!r}") from None
    except Exception as error:
        raise StartupError(f"{app!r} can't be imported: {error!r}") from error
    for name in attribute.split("."):
        try:
            value = getattr(value, name)
        except AttributeError:
            raise StartupError(f"{app!r}: {value!r} has no attribute {name!r}") from None
    if not callable(value):
        raise StartupError(f"{app!r} is not callable: {value!r}")
    return value


def is_asgi(application: Any) -> bool:
    """Tell whether *application* is one for ASGI: a coroutine function, or an object with one."""
    if inspect.isclass(application):
        return hasattr(application, "__await__")
    if inspect.iscoroutinefunction(inspect.unwrap(application)):
        return True
    while hasattr(application, "func"):  # functools.partial
        application = application.func
    return inspect.iscoroutinefunction(application) or inspect.iscoroutinefunction(
        getattr(type(application), "__call__", None)  # noqa: B004
    )
