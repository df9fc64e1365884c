"""HTTP clients and servers: ``evhttp``."""

from libevent_py.http import explain as explain  # registers what is said of them
from libevent_py.http.bound_socket import BoundSocket as BoundSocket
from libevent_py.http.client import HttpConnection as HttpConnection
from libevent_py.http.headers import Headers as Headers
from libevent_py.http.headers import Query as Query
from libevent_py.http.headers import parse_query as parse_query
from libevent_py.http.headers import parse_query_str as parse_query_str
from libevent_py.http.packed import HttpRequestSnapshot as HttpRequestSnapshot
from libevent_py.http.request import HttpRequest as HttpRequest
from libevent_py.http.server import HttpServer as HttpServer
from libevent_py.http.server_connection import HttpServerConnection as HttpServerConnection
from libevent_py.http.server_request import HttpServerRequest as HttpServerRequest
from libevent_py.http.uri import Uri as Uri
from libevent_py.http.uri import decode_uri as decode_uri
from libevent_py.http.uri import encode_uri as encode_uri
from libevent_py.http.uri import htmlescape as htmlescape
from libevent_py.http.uri import uridecode as uridecode
from libevent_py.http.uri import uriencode as uriencode

__all__ = [
    "BoundSocket",
    "Headers",
    "HttpConnection",
    "HttpRequest",
    "HttpRequestSnapshot",
    "HttpServer",
    "HttpServerConnection",
    "HttpServerRequest",
    "Query",
    "Uri",
    "decode_uri",
    "encode_uri",
    "htmlescape",
    "parse_query",
    "parse_query_str",
    "uridecode",
    "uriencode",
]
