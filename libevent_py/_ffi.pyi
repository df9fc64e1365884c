"""What build_ffi.py builds: libevent's names as attributes of lib; C's types and memory by ffi."""

from collections.abc import Callable
from typing import Any, TypeVar

_Function = TypeVar("_Function", bound=Callable[..., Any])

class _FFI:
    NULL: Any
    CData: type
    CType: type
    buffer: type
    error: type[Exception]
    errno: int

    def def_extern(
        self,
        name: str | None = None,
        error: Any = None,
        onerror: Callable[[Any, Any, Any], Any] | None = None,
    ) -> Callable[[_Function], _Function]: ...
    def __getattr__(self, name: str) -> Any: ...

class _Lib:
    def __getattr__(self, name: str) -> Any: ...

ffi: _FFI
lib: _Lib
