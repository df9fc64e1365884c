"""Links from pages to files of the project, which have pages of their own on the site.

A page is plain Markdown, so it links to ``../samples/pair.py``, as everywhere else. On the site
that becomes a page with the file's text; and a folder's a list of its files.

There are no files of Markdown on the site, so a link whose text is such a file's name has the
page's title there, and a name in backquotes leads to the page.
"""

from __future__ import annotations

import functools
import html
import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.highlighting import PygmentsBridge
from sphinx.util import logging

ROOT = Path(__file__).parents[2]
#: The pages that show files of the folder above docs.
SHOWN = {
    "CHANGELOG.md": "docs/changelog.md",
    "CONTRIBUTING.md": "docs/contributing.md",
    "README.md": "docs/index.md",
    "SECURITY.md": "docs/security.md",
}
LINK = re.compile(r"(?<!!)(\]\()([^)\s#:]+)(#[^)\s]*)?\)")
FENCE = re.compile(r"^(```+).*?^\1`*$", re.MULTILINE | re.DOTALL)
LANGUAGES = {".py": "python", ".c": "c", ".h": "c", ".toml": "toml", ".rpc": "text", ".md": "md"}
#: Names of files in backquotes that lead to their page, too.
FILE = re.compile(r"(?:samples|benchmarks)/[\w/]+\.(?:py|c|h)|tests/house/users_program\.py")

#: How a page is called where its name stands for it.
PAGE = re.compile(r"[\w./-]+\.md")

logger = logging.getLogger(__name__)


def rewritten(text: str, folder: Path, page: Path) -> str:
    """Return Markdown whose links are seen from *folder* as the page *page* has to write them."""

    def link(found: re.Match[str]) -> str:
        target = Path(os.path.normpath(folder / found[2]))
        if not target.is_relative_to(ROOT) or not target.exists():
            return found[0]  # what is wrong, MyST says
        name = target.relative_to(ROOT).as_posix()
        name = SHOWN.get(name, name)
        anchor = found[3] or ""
        if name.startswith("docs/") and target.suffix:
            return f"{found[1]}{os.path.relpath(ROOT / name, page.parent)}{anchor})"
        return f"{found[1]}repo:{name})"

    parts, end = [], 0
    for fence in FENCE.finditer(text):
        parts += [LINK.sub(link, text[end : fence.start()]), fence[0]]
        end = fence.end()
    return "".join([*parts, LINK.sub(link, text[end:])])


def read(app: Sphinx, docname: str, source: list[str]) -> None:
    """Rewrite the links of a page."""
    page = Path(app.env.doc2path(docname))
    source[0] = rewritten(source[0], page.parent, page)


def included(app: Sphinx, path: Path, _parent: str, source: list[str]) -> None:
    """Rewrite the links of a file that a page includes."""
    file = (Path(app.srcdir) / path).resolve()
    source[0] = rewritten(source[0], file.parent, Path(app.srcdir) / "page.md")


def files(env: BuildEnvironment) -> dict[str, set[str]]:
    """Return the files that each page links to."""
    known: dict[str, set[str]] = vars(env).setdefault("project_files", {})
    return known


def purge(_app: Sphinx, env: BuildEnvironment, docname: str) -> None:
    """Forget the files of a page that is read again."""
    files(env).pop(docname, None)


def noted(app: Sphinx, doctree: nodes.document) -> None:
    """Note what files a page links to; let a file's name in backquotes be such a link."""
    here = files(app.env).setdefault(app.env.docname, set())
    for literal in [*doctree.findall(nodes.literal)]:
        name = literal.astext()
        if FILE.fullmatch(name) and (ROOT / name).exists() and not linked(literal):
            literal.replace_self(nodes.reference("", "", literal.deepcopy(), refuri=f"repo:{name}"))
    for reference in doctree.findall(nodes.reference):
        uri = reference.get("refuri", "")
        if uri.startswith("repo:"):
            here.add(uri.removeprefix("repo:"))


def titled(app: Sphinx, doctree: nodes.document) -> None:
    """Let links to pages have the titles of these, where they had the names of their files."""
    for link in doctree.findall(addnodes.pending_xref):
        if link.get("refdomain") == "doc" and PAGE.fullmatch(link.astext()):
            link["refexplicit"] = False
    for literal in [*doctree.findall(nodes.literal)]:
        page = page_named(app.env, literal.astext())
        if page is not None and page != app.env.docname and not linked(literal):
            shown = nodes.inline("", "", literal.deepcopy())
            literal.replace_self(to_page(shown, page, app.env.docname))


def page_named(env: BuildEnvironment, name: str) -> str | None:
    """Return the page that a file such as ``docs/safety.md`` becomes, or None."""
    name = SHOWN.get(name, name)
    page = name.removeprefix("docs/").removesuffix(".md")
    return page if PAGE.fullmatch(name) and page in env.found_docs else None


def to_page(shown: nodes.inline, page: str, docname: str, anchor: str | None = None) -> nodes.Node:
    """Return what is *shown* as a link to a page, or to its *anchor*."""
    return addnodes.pending_xref(
        "",
        shown,
        refdomain="doc",
        reftype="myst",
        reftarget=page,
        reftargetid=anchor,
        refdoc=docname,
        refexplicit=True,
    )


def linked(node: nodes.Node) -> bool:
    """Tell whether a node is within a link or a heading."""
    return any(
        isinstance(above, (nodes.reference, addnodes.pending_xref, nodes.title, nodes.Titular))
        for above in parents(node)
    )


def parents(node: nodes.Node) -> Iterator[nodes.Node]:
    """Yield what a node is in, from the inside."""
    above = node.parent
    while above is not None:
        yield above
        above = above.parent


def page_of(name: str) -> str:
    """Return the name of the page that shows a file or folder."""
    return f"files/{name}"


def resolved(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Let links lead to the pages of their files."""
    for reference in doctree.findall(nodes.reference):
        uri = reference.get("refuri", "")
        if uri.startswith("repo:"):
            page = page_of(uri.removeprefix("repo:"))
            reference["refuri"] = app.builder.get_relative_uri(docname, page)
            reference["internal"] = True
        elif re.match(r"https?:", uri) and not re.fullmatch(r"https?://[\w.-]+(:\d+)?(/\S*)?", uri):
            logger.warning("%r is no address", uri, location=reference)


def pages(app: Sphinx) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Yield the page of each file that is linked to, and of each in a folder that is."""
    bridge = PygmentsBridge("html", app.config.pygments_style)
    wanted = sorted(set().union(*files(app.env).values()))
    done = set()
    trees: dict[int, Any] = {}  # the navigation is the same for all pages as deep below the root
    while wanted:
        name = wanted.pop()
        if name in done:
            continue
        done.add(name)
        path = ROOT / name
        if path.is_dir():
            inside = sorted(
                file.relative_to(ROOT).as_posix()
                for file in path.iterdir()
                if (file.is_dir() and next(file.glob("*.*"), None)) or file.suffix in LANGUAGES
                if not file.name.startswith(("_", "."))
            )
            wanted += inside
            items = "".join(
                f'<li><a href="{html.escape(relative(app, name, file))}">'
                f"<code>{html.escape(PurePosixPath(file).name)}</code></a>{about(ROOT / file)}</li>"
                for file in inside
            )
            body = f"<ul>{items}</ul>"
        else:
            language = LANGUAGES.get(path.suffix, "text")
            body = bridge.highlight_block(path.read_text(), language, linenos=False)
        context = {"title": name, "body": f"<h1>{html.escape(name)}</h1>{body}", "toc": ""}
        depth = name.count("/")
        if depth not in trees:
            trees[depth] = functools.cache(
                functools.partial(app.builder._get_local_toctree, page_of(name))  # type: ignore[attr-defined]
            )
        context["toctree"] = trees[depth]
        yield page_of(name), context, "page.html"


def finished(app: Sphinx, error: Exception | None) -> None:
    """Remove the folder that Sphinx makes for the sources, which the site doesn't have."""
    place = Path(app.outdir, "_sources")
    if error is None and place.is_dir() and not app.config.html_copy_source:
        place.rmdir()


def relative(app: Sphinx, name: str, other: str) -> str:
    """Return the way from the page of one file to that of another."""
    return app.builder.get_relative_uri(page_of(name), page_of(other))


def about(path: Path) -> str:
    """Return what the first line of a Python file says of it, as HTML."""
    if path.suffix != ".py":
        return ""
    found = re.match(r'"""(.*?)(?:"""|$)', path.read_text(), re.MULTILINE)
    text = html.escape(found[1]) if found else ""
    return " " + re.sub(r"``(.*?)``", r"<code>\1</code>", text)


def setup(app: Sphinx) -> dict[str, bool]:
    """Add the links and the pages."""
    app.connect("source-read", read)
    app.connect("include-read", included)
    app.connect("env-purge-doc", purge)
    app.connect("doctree-read", noted)
    app.connect("doctree-read", titled)
    app.connect("doctree-resolved", resolved)
    app.connect("html-collect-pages", pages)
    app.connect("build-finished", finished)
    return {"parallel_read_safe": False, "parallel_write_safe": True}
