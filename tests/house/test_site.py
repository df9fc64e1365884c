"""The site of the documentation builds, and leaves out no name and no page.

The tests of the built site need what the extra `docs` installs, which wants Python 3.11.
"""

from __future__ import annotations

import html.parser
import re
import runpy
import subprocess
import sys
import urllib.parse
import zlib
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import libevent_py
from libevent_py import Buffer, aio, lib, testing
from libevent_py._cli import find, in_c
from tests.kit import c_names, examples
from tests.kit.cdefs import not_declared
from tests.kit.names import sections, special
from tests.kit.support import ROOT
from tests.kit.tutorial import Program, programs

DOCS = ROOT / "docs"
PICTURES = DOCS / "pictures"
GUIDES = [DOCS / f"{name}.md" for name in ("index", "threads", "errors", "speed", "tls", "forking")]

# Before it is built: the names of C, the pictures, the programs.


def test_every_name_of_the_headers_went_somewhere() -> None:
    assert [one.id for one in c_names.names().values() if not one.known] == []


def test_the_index_has_all_that_the_package_and_its_tables_know() -> None:
    listed = {one.name for one in c_names.names().values()}
    assert len(listed) > 850
    theirs = {name for name, one in in_c.prototypes().items() if one.header.startswith("event2/")}
    assert theirs <= listed
    assert find.places().keys() <= listed
    assert not_declared("functions") | not_declared("macros") <= listed
    constants = {name for name in dir(lib) if find.is_constant(name)}
    others = re.compile("LIBEVENT_PY_|SSL_|X509_|TLS|OPENSSL_|FD_SETSIZE")
    assert {name for name in constants if not others.match(name)} <= listed


def test_the_table_of_c_names_says_nothing_in_vain() -> None:
    table = c_names.table()
    told = {one.name: (one.instead, one.why) for one in c_names.names().values()}
    assert {name: told.get(name) for name in table} == table


def test_what_the_table_of_c_names_leads_to_is_public() -> None:
    for names, _ in c_names.table().values():
        for name in names:
            holder: Any = libevent_py
            for part in name.split("."):
                holder = getattr(holder, part)


def test_a_struct_and_a_function_of_one_name_are_two_entries() -> None:
    names = c_names.names()
    assert names["struct-event_config"].instead == ["EventConfig"]
    assert names["c-event_add"].wrapped == ["Event.add"]
    assert names["c-evtimer_new"].stood_for == ["Event.timer"]
    assert names["c-EV_READ"].instead == ["EventFlag.READ"]
    assert names["c-event_init"].instead_in_c == ["event_base_new"]
    assert names["c-event_add"].text.startswith("int event_add(struct event *")
    assert [one.name for one in c_names.python("EventFlag.READ")] == ["EV_READ"]


@cache
def drawn() -> dict[str, Any]:
    return runpy.run_path(str(PICTURES / "draw.py"))


def test_each_picture_is_as_its_script_draws_it() -> None:
    pictures = drawn()["PICTURES"]
    assert pictures.keys() == {path.name for path in PICTURES.glob("*.svg")}
    for name, draw in pictures.items():
        message = f"{name}: run docs/pictures/draw.py"
        assert (PICTURES / name).read_text() == draw().svg(), message


def test_each_picture_is_in_a_page_with_a_text_for_those_who_do_not_see_it() -> None:
    pages = "".join(path.read_text() for path in DOCS.rglob("*.md"))
    for name in drawn()["PICTURES"]:
        assert re.search(rf"!\[\w[^\]]+\]\((?:\.\./)*pictures/{name}\)", pages), name


@pytest.mark.parametrize(
    "program", [one for page in GUIDES for one in programs(page)], ids=lambda one: str(one)
)
def test_a_guide_s_program_prints_what_the_page_says(program: Program) -> None:
    program.check()


# As it is built.


class Page(html.parser.HTMLParser):
    """What a page links to, the anchors that it has, and the files of Markdown that it names."""

    #: What has no end.
    EMPTY = ("area", "br", "col", "hr", "img", "input", "link", "meta", "source", "wbr")

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.ids: set[str] = set()
        self.files: list[str] = []  # where the page shows no code
        self._within: list[str] = []
        self.feed(path.read_text())

    def handle_endtag(self, tag: str) -> None:
        """Note what has ended."""
        while tag in self._within and self._within.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        """Note names of files, with what they are in."""
        if not {"pre", "script", "style", "title"} & {*self._within}:
            within = [tag for tag in ("a", "code") if tag in self._within]
            for name in re.findall(r"[\w./-]*\w\.md\b", data):
                self.files.append(" ".join([*within, name]))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note the links and the anchors."""
        if tag not in self.EMPTY:
            self._within.append(tag)
        for name, value in attrs:
            if value and name == "id":
                self.ids.add(value)
            elif value and name in ("href", "src") and tag in ("a", "img"):
                self.links.append(value)


class Site:
    """The built site."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pages = {path: Page(path) for path in sorted(folder.rglob("*.html"))}

    def page(self, name: str) -> Page:
        """Return the page of that name."""
        return self.pages[self.folder / f"{name}.html"]

    def objects(self, role: str) -> set[str]:
        """Return the names that the site's inventory has for a role such as ``py:class``."""
        data = (self.folder / "objects.inv").read_bytes()
        lines = zlib.decompress(data.split(b"\n", 4)[4]).decode().splitlines()
        pairs = [line.split(" ")[:2] for line in lines]
        return {name for name, kind in pairs if kind.startswith(role)}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "--fail-on-warning", "--keep-going", "--fresh-env"]
    done = subprocess.run(
        [*command, "--quiet", str(DOCS), str(folder)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        check=False,
    )
    if "No module named sphinx" in done.stdout:
        pytest.fail("the site needs Sphinx: make .venv/docs, or pip install -e '.[docs]'")
    assert (done.returncode, done.stdout) == (0, "")
    return Site(folder)


@pytest.mark.more
def test_every_public_name_is_in_the_reference(site: Site) -> None:
    found = site.objects("py:")
    wanted = set()
    for heading, listed in sections():
        holder = heading
        if not heading.startswith("libevent_py"):
            of = aio if heading in aio.__all__ else testing if heading in testing.__all__ else None
            holder = f"{of.__name__ if of else 'libevent_py'}.{heading}"
        wanted |= {f"{holder}.{name}" for name in listed}
    modules = {f"libevent_py.{name}" for name in ("debug", "log", "tag", "util")}
    assert modules <= found
    # A module that goes by two names, and one that only holds classes.
    elsewhere = {"libevent_py.rpc_message", "libevent_py.dns"}
    elsewhere |= {name for name in wanted if name.startswith("libevent_py.vulnerabilities.")}
    assert len(wanted) > 1000
    assert sorted(wanted - elsewhere - found) == []


@pytest.mark.more
def test_what_is_reached_by_syntax_is_in_the_reference_too(site: Site) -> None:
    found = site.objects("py:method")
    for name in ("testing.Until.__call__", "testing.Settle.__call__", "testing.Snapshot.__sub__"):
        assert f"libevent_py.{name}" in found
    assert {f"libevent_py.Buffer.{name}" for name in special(Buffer)} <= found
    assert "__contains__" in special(Buffer)
    text = (site.folder / "reference" / "testing.html").read_text()
    assert "condition" in text.partition('id="libevent_py.testing.Until.__call__"')[2][:2000]


@pytest.mark.more
def test_each_name_of_the_reference_has_links_to_examples(site: Site) -> None:
    found = set()
    for page in (site.folder / "reference").glob("*.html"):
        text = page.read_text()
        for name in re.finditer(r'<dt class="sig[^>]* id="libevent_py\.([\w.]+)"', text):
            following = text.find('<dt class="sig', name.end())
            links = text[name.end() : following if following > 0 else None]
            if re.search(r'<p class="examples">Examples?: <a ', links):
                found.add(name[1])
    assert examples.public().keys() - found == set()
    assert len(found) > 900


@pytest.mark.more
def test_every_name_of_the_headers_is_in_the_c_index(site: Site) -> None:
    assert c_names.names().keys() <= site.page("c-index").ids
    assert c_names.names().keys() == site.objects("std:cname")


@pytest.mark.more
def test_the_reference_and_the_c_index_lead_to_each_other(site: Site) -> None:
    forth, back = site.page("reference/event").links, site.page("c-index").links
    assert "../c-index.html#c-event_add" in forth
    assert "../c-index.html#c-EV_READ" in site.page("reference/enums").links
    assert "reference/event.html#libevent_py.Event.add" in back
    wrapped = {name for one in c_names.names().values() for name in one.wrapped}
    for name in wrapped:
        target = re.sub(r"\.__\w+__$", "", name).replace("rpc_message.", "rpc.")
        assert any(link.endswith(f"#libevent_py.{target}") for link in back), name


@pytest.mark.more
def test_every_page_is_in_a_toctree(site: Site) -> None:
    pages = {path.relative_to(DOCS).with_suffix(".html").as_posix() for path in DOCS.rglob("*.md")}
    assert len(pages) > 60
    assert pages - {"index.html"} <= set(site.page("index").links)


@pytest.mark.more
def test_every_link_leads_somewhere(site: Site) -> None:
    broken, outside = [], set()
    for path, page in site.pages.items():
        for link in page.links:
            parts = urllib.parse.urlsplit(link)
            if parts.scheme in ("http", "https"):
                outside.add(link)
                continue
            target = (path.parent / urllib.parse.unquote(parts.path)).resolve()
            target = path if not parts.path else target
            anchor = urllib.parse.unquote(parts.fragment)
            known = site.pages.get(target)
            if not target.is_file() or (known and anchor and anchor not in known.ids):
                broken.append(f"{path.relative_to(site.folder)}: {link}")
    assert broken == []
    assert len(outside) > 20
    well_formed = re.compile(r"https?://[a-z0-9.-]+\.[a-z0-9]+(:\d+)?(/[\w./%~#?=&+:-]*)?")
    assert [link for link in sorted(outside) if not well_formed.fullmatch(link)] == []


@pytest.mark.more
def test_no_page_names_a_file_that_the_site_does_not_have(site: Site) -> None:
    named = {
        path.relative_to(site.folder).as_posix(): page.files
        for path, page in site.pages.items()
        if "files" not in path.parts[len(site.folder.parts) :]
    }
    # Only as code that leads to the page; other links have titles.
    assert [
        (path, name)
        for path, names in named.items()
        for name in names
        if not name.startswith("a code ")
    ] == []
    assert "a code docs/names.md" in named["contributing.html"]
    assert not (site.folder / "_sources").exists()


@pytest.mark.more
def test_the_departures_of_docstrings_are_one_table(site: Site) -> None:
    text = (site.folder / "departures.html").read_text().partition("What the docstrings say")[2]
    assert text.count("<tr") > 60
    assert 'href="reference/event.html#libevent_py.Event.delete"' in text
