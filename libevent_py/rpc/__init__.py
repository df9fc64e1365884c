"""Remote procedure calls over HTTP: ``evrpc``."""

from libevent_py.rpc import explain as explain  # registers what is said of them
from libevent_py.rpc.message import Array as Array
from libevent_py.rpc.message import Bytes as Bytes
from libevent_py.rpc.message import Field as Field
from libevent_py.rpc.message import Int as Int
from libevent_py.rpc.message import Int64 as Int64
from libevent_py.rpc.message import Message as Message
from libevent_py.rpc.message import String as String
from libevent_py.rpc.message import Struct as Struct
from libevent_py.rpc.pool import RpcCall as RpcCall
from libevent_py.rpc.pool import RpcPool as RpcPool
from libevent_py.rpc.server import Rpc as Rpc
from libevent_py.rpc.server import RpcServer as RpcServer

__all__ = [
    "Array",
    "Bytes",
    "Field",
    "Int",
    "Int64",
    "Message",
    "Rpc",
    "RpcCall",
    "RpcPool",
    "RpcServer",
    "String",
    "Struct",
]
