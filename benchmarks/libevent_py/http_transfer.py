"""A client of HTTP that sends or gets many bytes: ``http_transfer upload DIRECTORY|download``."""

import sys

from benchmarks.contender import processor_time, serve
from libevent_py import (
    EventBase,
    FileSegment,
    FileSegmentFlag,
    HttpCommand,
    HttpConnection,
    HttpRequest,
)

MAPPED = FileSegmentFlag(0)  # as C does it

received = 0


def on_chunk(request):
    global received
    received += len(request.input_buffer)


def on_answer(request):
    assert request.error is None and request.response_code == 200
    base.loopbreak()


def sample(port: int, size: int) -> tuple[int, int]:
    global received
    received = 0
    start = processor_time()
    with HttpConnection(base, "127.0.0.1", port) as connection:
        request = HttpRequest(on_answer, on_chunk=on_chunk if what == "download" else None)
        request.output_headers["Host"] = "127.0.0.1"
        if what == "upload":
            with open(f"{directory[0]}/{size}", "rb") as file:
                request.output_buffer.add_file_segment(FileSegment(file, flags=MAPPED))
            connection.make_request(request, HttpCommand.POST, "/")
        else:
            connection.make_request(request, HttpCommand.GET, "/")
        base.dispatch()
    return processor_time() - start, (size if what == "upload" else received) // 1024


_, what, *directory = sys.argv
base = EventBase()
serve(sample)
