""" "Hello, World!" by aiohttp: ``aiohttp_hello LOOP``."""

from aiohttp import web

from benchmarks.asyncio.loop import loop
from benchmarks.contender import HELLO, say_port


async def hello(request: web.Request) -> web.Response:
    return web.Response(body=HELLO, content_type="text/plain")


async def serve() -> None:
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, backlog=1024)
    await site.start()
    say_port(runner.addresses[0][1])


application = web.Application()
application.router.add_get("/", hello)
loop.run_until_complete(serve())
loop.run_forever()
