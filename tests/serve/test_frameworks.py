"""Applications of the frameworks that people use, asked by httpx."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import httpx
import pytest

from tests.kit.certificates import Authority
from tests.kit.serving import serving


def flask_app() -> Any:
    import flask

    app = flask.Flask(__name__)

    @app.route("/hello/<name>")
    def hello(name: str) -> str:
        return f"hello {name}"

    @app.post("/json")
    def json() -> Any:
        return flask.jsonify(got=flask.request.get_json(), who=flask.request.headers["x-who"])

    @app.post("/file")
    def file() -> Any:
        return flask.request.files["file"].read()

    @app.get("/stream")
    def stream() -> Any:
        return flask.Response((f"{number}\n" for number in range(1000)), mimetype="text/plain")

    @app.get("/where")
    def where() -> str:
        return flask.url_for("hello", name="x", _external=True)

    @app.get("/cookie")
    def cookie() -> Any:
        answer = flask.make_response(flask.request.cookies.get("a", ""))
        answer.set_cookie("a", "b")
        return answer

    return app


def django_app() -> Any:
    import django
    from django.conf import settings
    from django.http import HttpResponse, JsonResponse, StreamingHttpResponse
    from django.urls import path

    def hello(request: Any, name: str) -> Any:
        return HttpResponse(f"hello {name}")

    def json(request: Any) -> Any:
        import json

        return JsonResponse({"got": json.loads(request.body), "who": request.headers["x-who"]})

    def file(request: Any) -> Any:
        return HttpResponse(request.FILES["file"].read())

    def stream(request: Any) -> Any:
        return StreamingHttpResponse(f"{number}\n" for number in range(1000))

    def where(request: Any) -> Any:
        return HttpResponse(request.build_absolute_uri("/hello/x"))

    def cookie(request: Any) -> Any:
        answer = HttpResponse(request.COOKIES.get("a", ""))
        answer.set_cookie("a", "b")
        return answer

    if not settings.configured:
        urls = [
            path("hello/<name>", hello),
            *(path(view.__name__, view) for view in (json, file, stream, where, cookie)),
        ]
        root = type("urls", (), {"urlpatterns": urls})
        settings.configure(
            ROOT_URLCONF=root, SECRET_KEY="secret", ALLOWED_HOSTS=["*"], DEBUG=False, MIDDLEWARE=[]
        )
        django.setup()
    return None


def django_wsgi() -> Any:
    django_app()
    from django.core.wsgi import get_wsgi_application

    return get_wsgi_application()


def starlette_app() -> Any:
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.middleware.base import BaseHTTPMiddleware
    from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
    from starlette.routing import Route

    async def hello(request: Any) -> Any:
        return PlainTextResponse(f"hello {request.path_params['name']}")

    async def json(request: Any) -> Any:
        return JSONResponse({"got": await request.json(), "who": request.headers["x-who"]})

    async def file(request: Any) -> Any:
        async with request.form() as form:
            return Response(await form["file"].read())

    async def stream(request: Any) -> Any:
        async def parts() -> Any:
            for number in range(1000):
                yield f"{number}\n"
                if number % 100 == 0:
                    await asyncio.sleep(0)

        return StreamingResponse(parts())

    async def where(request: Any) -> Any:
        return PlainTextResponse(str(request.url_for("hello", name="x")))

    async def cookie(request: Any) -> Any:
        answer = PlainTextResponse(request.cookies.get("a", ""))
        answer.set_cookie("a", "b")
        return answer

    async def passing(request: Any, call_next: Any) -> Any:
        answer = await call_next(request)
        answer.headers["x-passed"] = "yes"
        return answer

    return Starlette(
        routes=[
            Route("/hello/{name}", hello),
            Route("/json", json, methods=["POST"]),
            Route("/file", file, methods=["POST"]),
            *(Route(f"/{view.__name__}", view) for view in (stream, where, cookie)),
        ],
        middleware=[Middleware(BaseHTTPMiddleware, dispatch=passing)],
    )


def fastapi_app() -> Any:
    from fastapi import FastAPI, Request, UploadFile
    from fastapi.responses import PlainTextResponse, Response, StreamingResponse

    app = FastAPI()

    @app.get("/hello/{name}", response_class=PlainTextResponse)
    def hello(name: str) -> str:  # on a thread of anyio's
        return f"hello {name}"

    async def json(request: Request) -> Any:
        return {"got": await request.json(), "who": request.headers["x-who"]}

    async def file(file: UploadFile) -> Any:
        return Response(await file.read())

    async def stream() -> Any:
        return StreamingResponse(f"{number}\n" for number in range(1000))

    async def where(request: Request) -> Any:
        return PlainTextResponse(str(request.url_for("hello", name="x")))

    async def cookie(request: Request) -> Any:
        answer = PlainTextResponse(request.cookies.get("a", ""))
        answer.set_cookie("a", "b")
        return answer

    # Annotations of what is imported here can't be looked up later.
    json.__annotations__["request"] = where.__annotations__["request"] = Request
    cookie.__annotations__["request"] = Request
    file.__annotations__["file"] = UploadFile
    app.post("/json")(json)
    app.post("/file")(file)
    for view in stream, where, cookie:
        app.get(f"/{view.__name__}")(view)
    return app


def ask(client: httpx.Client, url: str) -> None:
    """Ask for all that the applications do."""
    assert client.get("/hello/Wörld").text == "hello Wörld"
    answer = client.post("/json", json={"a": [1, "ä"]}, headers={"x-who": "me"})
    assert answer.json() == {"got": {"a": [1, "ä"]}, "who": "me"}
    content = os.urandom(300000)
    assert client.post("/file", files={"file": ("name", content)}).content == content
    assert client.get("/stream").text == "".join(f"{number}\n" for number in range(1000))
    assert client.get("/where").text == f"{url}/hello/x"
    assert client.get("/cookie").text == ""
    assert client.get("/cookie").text == "b"
    assert client.get("/nowhere").status_code == 404
    assert client.head("/hello/x").content == b""


@pytest.mark.parametrize("threads", [0, 4])
@pytest.mark.parametrize("make", [flask_app, django_wsgi])
def test_a_wsgi_framework_s_application_is_served(make: Any, threads: int) -> None:
    with serving(make(), threads=threads) as site, httpx.Client(base_url=site.url) as client:
        ask(client, site.url)


@pytest.mark.parametrize("make", [starlette_app, fastapi_app])
def test_an_asgi_framework_s_application_is_served(make: Any) -> None:
    with serving(make(), lifespan="auto") as site, httpx.Client(base_url=site.url) as client:
        ask(client, site.url)


@pytest.mark.parametrize("make", [flask_app, starlette_app])
def test_https_is_served_to_httpx(make: Any, authority: Authority) -> None:
    import ssl

    certificate = authority.server
    tls = {"tls_cert": str(certificate.certfile), "tls_key": str(certificate.keyfile)}
    context = ssl.create_default_context(cafile=str(authority.directory / "ca.pem"))
    with (
        serving(make(), **tls) as site,
        httpx.Client(base_url=site.url, verify=context) as client,
    ):
        ask(client, site.url)
