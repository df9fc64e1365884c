"""An HTTP server of the files in a directory, which are sent straight from the disk.

A directory is answered with a list of its files. Nothing outside the directory is served: neither
by "..", however it is encoded, nor through symbolic links. /dump prints the request, and so does
every method but GET.

Made of evhttp_new, evhttp_set_cb, evhttp_set_gencb, evhttp_bind_socket_with_handle,
evhttp_bind_listener, evhttp_request_get_command, evhttp_request_get_uri,
evhttp_uri_parse_with_flags, evhttp_uridecode, evhttp_uriencode, evhttp_htmlescape,
evhttp_request_get_input_headers, evhttp_request_get_input_buffer,
evhttp_request_get_output_buffer, evbuffer_add_file, evhttp_send_reply, evhttp_send_error,
evhttp_set_timeout, evhttp_set_max_body_size, evhttp_free, evsignal_new, event_base_dispatch and
event_base_loopexit.

    python samples/http_server.py [-U socket] [host [port [directory]]]
    curl http://127.0.0.1:8888/
"""

from __future__ import annotations

import mimetypes
import os
import re
import signal
import stat
import sys
from collections.abc import Callable

from libevent_py import (
    Event,
    EventBase,
    HttpCommand,
    HttpServer,
    HttpServerRequest,
    Listener,
    Uri,
    htmlescape,
    uridecode,
    uriencode,
)

PAGE = (
    "<!DOCTYPE html>\n<html><head><meta charset='utf-8'><title>{0}</title></head>\n"
    "<body><h1>{0}</h1>\n<ul>\n{1}</ul></body></html>\n"
)


def dump(request: HttpServerRequest) -> None:
    command = request.command
    print(f"{getattr(command, 'name', command)} {request.uri}")
    for name, value in request.input_headers.items():
        print(f"  {name}: {value}")
    shown = re.sub(rb"[^ -~]", b".", bytes(request.input_buffer))
    print(f"body: {shown.decode()}", flush=True)
    request.send_reply(200, "OK")


def listing(names: list[bytes], directory: bytes) -> bytes:
    """Return a page about what is in *directory*."""
    title, links = shown(directory), ""
    for name in sorted(names):
        links += f"<li><a href='{uriencode(name)}'>{shown(name)}</a></li>\n"
    return PAGE.format(title, links).encode()


def shown(name: bytes) -> str:
    return htmlescape(name.decode("utf-8", "replace"))


def documents(directory: str) -> Callable[[HttpServerRequest], None]:
    """Return what answers requests for the files in *directory*."""
    root = os.path.realpath(os.fsencode(directory))

    def find(request: HttpServerRequest) -> tuple[bytes, int]:
        """Return the path and a descriptor of what is asked for; raise OSError or ValueError."""
        with Uri.parse(request.uri) as uri:
            path = uridecode(uri.path or "/")
        real = os.path.realpath(root + b"/" + path, strict=True)
        if b".." in path.split(b"/") or os.path.commonpath([root, real]) != root:
            raise ValueError("this is outside")
        return path, os.open(real, os.O_RDONLY | os.O_NONBLOCK)  # else a FIFO would hold all up

    def answer(request: HttpServerRequest) -> None:
        if request.command not in (HttpCommand.GET, HttpCommand.HEAD):
            dump(request)
            return
        try:
            path, fd = find(request)
        except (OSError, ValueError):
            request.send_error(404)
            return
        try:
            send(request, path, fd)
        finally:
            os.close(fd)

    return answer


def send(request: HttpServerRequest, path: bytes, fd: int) -> None:
    """Answer with the file or directory that *fd* is open on, and *path* leads to."""
    headers, body = request.output_headers, request.output_buffer
    mode, slash = os.fstat(fd).st_mode, path.endswith(b"/")
    if stat.S_ISREG(mode) and not slash:
        guessed, encoding = mimetypes.guess_type(os.fsdecode(path))
        headers["Content-Type"] = (not encoding and guessed) or "application/octet-stream"
        body.add_file(fd)
    elif not stat.S_ISDIR(mode):
        request.send_error(404)
        return
    elif slash:
        headers["Content-Type"] = "text/html; charset=utf-8"
        body.add(listing([os.fsencode(name) for name in os.listdir(fd)], path))
    else:
        headers["Location"] = uriencode(os.path.basename(path)) + "/"
        request.send_reply(301, "Moved Permanently")
        return
    request.send_reply(200, "OK")


def main(
    host: str = "127.0.0.1",
    port: int | str = 8888,
    directory: str = ".",
    *,
    unix: str | None = None,
) -> None:
    with EventBase() as base:
        server = HttpServer(base)
        server.timeout = 10.0
        server.max_body_size = 2**20
        server.set_cb("/dump", dump)
        server.set_gencb(documents(directory))
        if unix is None:
            where = "{}:{}".format(*server.bind_socket(host, int(port)).address)
        else:
            server.bind_listener(Listener(base, unix, lambda *accepted: None))
            where = unix
        Event.signal(base, signal.SIGINT, lambda event, fd, what: base.loopexit()).add()
        print(f"serving {where}, Ctrl-C to stop", flush=True)
        base.dispatch()


if __name__ == "__main__":
    words = sys.argv[1:]
    unix = words.pop(words.index("-U") + 1) if "-U" in words else None
    words = [word for word in words if word != "-U"]
    print(__doc__) if "--help" in words else main(*words, unix=unix)
