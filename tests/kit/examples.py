"""Which examples use a public name; ``python -m tests.kit.examples`` finds out.

It runs the programs of the documentation's pages and the samples, has them tell what they use
(`tests/kit/seeing`), and writes docs/examples.json: for each public name up to three places, such
as ``tutorial/07-buffers#lines`` or ``samples/pair.py``. The site links to these below each name in
the reference. Tests show that each name has a place, and that it is used there.

What a page's programs have told is kept in build/examples, until the page changes.
"""

from __future__ import annotations

import ast
import enum
import functools
import hashlib
import importlib
import inspect
import json
import os
import re
import subprocess
import sys
import tempfile
import types as kinds
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from libevent_py import types
from tests.kit import names
from tests.kit.peers import nobody_listens
from tests.kit.support import PATIENCE, ROOT
from tests.kit.tutorial import _FILE, _environment, programs

DOCS = ROOT / "docs"
TABLE = DOCS / "examples.json"
KEPT = ROOT / "build" / "examples"
SEEING = Path(__file__).parent / "seeing"

#: Pages whose programs say what they print.
WITH_OUTPUT = [
    *sorted((DOCS / "tutorial").glob("[0-9]*.md")),
    *sorted((DOCS / "examples").glob("*.md")),
    *(DOCS / f"{name}.md" for name in ("threads", "errors", "speed", "tls", "forking")),
]
#: Pages whose programs other tests run.
PLAIN = [DOCS / f"{name}.md" for name in ("asyncio", "in-thread", "trio", "serving", "debugging")]
#: Pages whose blocks are files of tests.
OF_TESTS = [DOCS / "testing.md"]

#: How many places of a name are kept: on pages, and among the samples.
PAGES, SAMPLES = 2, 1


# What there is.


def headings() -> Iterator[str]:
    """Yield the names that the pages of the reference list."""
    for page in sorted((DOCS / "reference").glob("*.md")):
        for block in re.findall(r"\.\. public::\n\n((?:   .*\n)+)", page.read_text()):
            yield from block.split()


@functools.cache
def public() -> dict[str, Any]:
    """Return each public name that the reference has, and its object.

    Members of enumerations are left out: an example of the enumeration will do for them.
    """
    found: dict[str, Any] = {f"types.{name}": getattr(types, name) for name in names.own(types)}
    modules = set()
    for name in headings():
        value = thing(name)
        found[name] = value
        if inspect.ismodule(value) and name != "lib":
            modules.add(name)
        if isinstance(value, type) and not issubclass(value, enum.Enum):
            for member in [*names.members(value), *names.special(value)]:
                found[f"{name}.{member}"] = inspect.getattr_static(value, member, None)
    return {name: value for name, value in found.items() if name not in modules}


def thing(name: str) -> Any:
    """Return the object of a name of the reference, such as ``aio.Stream``."""
    value: Any = importlib.import_module("libevent_py")
    for part in name.split("."):
        if not hasattr(value, part):
            importlib.import_module(f"{value.__name__}.{part}")
        value = getattr(value, part)
    return value


def key_of(value: Any) -> str:
    """Return what stands for a class or a function."""
    return f"{value.__module__}:{value.__qualname__}"


def definition(kind: type, name: str) -> str:
    """Return what stands for *name* of *kind*: the class that defines it, and the name."""
    holder = next((above for above in kind.__mro__ if name in vars(above)), kind)
    return f"{key_of(holder)}.{name}"


@functools.cache
def keys() -> dict[str, list[str]]:
    """Return the public names of each definition: inherited ones have the same."""
    found = defaultdict(list)
    for name, value in public().items():
        holder, _, last = name.rpartition(".")
        whose = public().get(holder)
        if isinstance(whose, type):
            found[definition(whose, last)].append(name)
        elif isinstance(value, (type, kinds.FunctionType)):
            found[key_of(value)].append(name)
        else:
            found[f"libevent_py.{name}"].append(name)
    return dict(found)


# What is used.


class Use(NamedTuple):
    """A public name's definition, and where it is used."""

    key: str
    place: str
    #: Whether it is only there: an instance of the class is used, or a ``with`` block closes one.
    weak: bool = False
    #: Of which class an attribute was used, and the classes above: others only inherit the same.
    owners: tuple[str, ...] = ()


def used_by_name(code: str) -> Iterator[tuple[str, int]]:
    """Yield the names that *code* imports from the package and uses, with their lines."""
    tree = ast.parse(code)
    imported: dict[str, str] = {}
    notes: set[int] = set()  # annotations use no names but those that are made for them
    of_types: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("libevent_py"):
            for each in node.names:
                module = importlib.import_module(node.module or "")
                value = getattr(module, each.name, None)
                if module is types:
                    of_types.add(each.asname or each.name)
                imported[each.asname or each.name] = named(value, f"{node.module}.{each.name}")
        for field in ("annotation", "returns"):
            if note := getattr(node, field, None):
                notes |= {id(part) for part in ast.walk(note)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id in imported and isinstance(node.ctx, ast.Load):
            key = imported[node.id]
            if id(node) not in notes or node.id in of_types:
                yield key, node.lineno


def named(value: Any, name: str) -> str:
    """Return what stands for *value*, which a module has as *name*."""
    own = isinstance(value, (type, kinds.FunctionType)) and key_of(value) in keys()
    return key_of(value) if own else name


def read(told: str) -> Iterator[Use]:
    """Yield what programs have told; a place is a file with a line there."""
    for line in told.splitlines():
        how, owner, name, place = line.split("\t")
        module, _, qualified = owner.partition(":")
        value: Any = importlib.import_module(module)
        if not qualified:
            yield Use(named(getattr(value, name, None), f"{module}.{name}"), place)
            continue
        for part in qualified.split("."):
            value = getattr(value, part, None)
        if isinstance(value, type):
            owners = tuple(key_of(above) for above in value.__mro__)
            yield Use(definition(value, name), place, how == "with", owners)
            for above in value.__mro__:
                yield Use(key_of(above), place, True, owners)
                if name in vars(above):  # it says what the method has to do
                    yield Use(f"{key_of(above)}.{name}", place, True, owners)


def seeing(command: list[str], folder: Path, within: Path, env: dict[str, str]) -> str:
    """Run *command*, and return what the modules *within* have told; it must end with status 0."""
    with tempfile.NamedTemporaryFile("r") as sink:
        paths = [str(SEEING), str(ROOT), *filter(None, [env.get("PYTHONPATH")])]
        done = subprocess.run(
            command,
            cwd=folder,
            env={
                **env,
                "PYTHONPATH": os.pathsep.join(paths),
                "SEEING_IN": str(within),
                "SEEING_TO": sink.name,
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=5 * PATIENCE,
            check=False,
        )
        if done.returncode:
            raise AssertionError(f"{command} ended with {done.returncode}:\n{done.stdout}")
        return sink.read()


def of_program(
    page: Path, code: str, lines: dict[str, list[int]], files: dict[str, str]
) -> Iterator[Use]:
    """Run a page's program; *lines* says on which of the page each line of a file is."""
    sections = Sections(page)
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made).resolve()
        for name, text in {**files, "program.py": code}.items():
            (folder / name).write_text(text)
        command = [sys.executable, "-X", "dev", "-m", "program"]
        told = seeing(command, folder, folder, _environment())
    for use in read(told):
        name, _, line = Path(use.place).name.partition(":")
        yield use._replace(place=sections.at(lines[name][int(line) - 1]))
    for name, source in {**files, "program.py": code}.items():
        if name.endswith(".py"):
            for key, number in used_by_name(source):
                yield Use(key, sections.at(lines[name][number - 1]))


def of_page(page: Path) -> Iterator[Use]:
    """Run the programs of a page."""
    if page in WITH_OUTPUT:
        for program in programs(page):
            if not program.console:
                own = [program.line + 1 + n for n in range(len(program.code.splitlines()))]
                lines = {**file_lines(page), "program.py": own}
                yield from of_program(page, program.code, lines, program.files)
    elif page in PLAIN:
        for line, code in blocks(page):
            if "pytest" not in code:
                own = [line + 1 + n for n in range(len(code.splitlines()))]
                free = re.sub(r"\b876\d\b", str(nobody_listens()[1]), code)
                yield from of_program(page, free, {"program.py": own}, {})
    else:
        yield from of_tests(page)


def of_tests(page: Path) -> Iterator[Use]:
    """Run the tests of a page."""
    sections = Sections(page)
    places = {}
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made).resolve()
        for line, code in blocks(page):
            file = f"test_{line}.py"
            places[file] = line
            (folder / file).write_text(code)
            for key, number in used_by_name(code):
                yield Use(key, sections.at(line + number))
        options = ["--assert=plain", "-p", "no:cacheprovider", "-p", "no:asyncio", "-q"]
        options += [
            "--deselect",
            next(f for f in places if "to_the_net" in (folder / f).read_text()),
        ]
        told = seeing([sys.executable, "-m", "pytest", *options], folder, folder, {**os.environ})
    for use in read(told):
        name, _, line_in_file = Path(use.place).name.partition(":")
        yield use._replace(place=sections.at(places[name] + int(line_in_file)))


def of_samples() -> Iterator[Use]:
    """Run the tests of the samples."""
    within = ROOT / "samples"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    command += ["-p", "samples_as_modules", "-m", "not more", "-k", "python", "tests/samples"]
    told = seeing(command, ROOT, within, {**os.environ})
    for use in read(told):
        yield use._replace(place=f"samples/{Path(use.place.rpartition(':')[0]).name}")
    for file in sorted(within.glob("[a-z]*.py")):
        for key, _ in used_by_name(file.read_text()):
            yield Use(key, f"samples/{file.name}")


def blocks(page: Path) -> Iterator[tuple[int, str]]:
    """Yield the programs of a page with the lines where they begin."""
    text = page.read_text()
    for found in re.finditer(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        yield text.count("\n", 0, found.start()) + 1, found[1]


def file_lines(page: Path) -> dict[str, list[int]]:
    """Return for each file of a page where its lines are on the page."""
    lines: dict[str, list[int]] = {}
    for start, code in blocks(page):
        if named := _FILE.match(code):
            numbers = [start + 1 + n for n in range(len(code.splitlines()))]
            if named[2]:
                rest = code[named.end() :]
                skipped = 1 + len(rest) - len(rest.lstrip("\n"))
                lines[named[1]] += [0, 0, *numbers[skipped:]]
            else:
                lines[named[1]] = numbers
    return lines


class Sections:
    """The headings of a page, and the links to them."""

    def __init__(self, page: Path) -> None:
        self.name = page.relative_to(DOCS).with_suffix("").as_posix()
        self.starts: list[tuple[int, str, str]] = []
        fenced = False
        taken: dict[str, int] = {}
        for number, line in enumerate(page.read_text().splitlines(), 1):
            fenced ^= line.startswith("```")
            if not fenced and (found := re.match(r"#{1,4} (.*)", line)):
                slug = slug_of(found[1])
                taken[slug] = taken.get(slug, -1) + 1
                once = f"{slug}-{taken[slug]}" if taken[slug] else slug
                self.starts.append((number, once, found[1].replace("`", "")))

    def at(self, line: int) -> str:
        """Return the place that has this *line*."""
        slug = [slug for start, slug, _ in self.starts if start <= line][-1]
        return f"{self.name}#{slug}"

    def title(self, slug: str) -> str:
        """Return what a link to that section says: the page's title, and the section's."""
        own = {known: title for _, known, title in self.starts}
        whole = re.sub(r"^\d+\. ", "", self.starts[0][2])
        return whole if slug == self.starts[0][1] else f"{whole}: {own[slug]}"

    def text(self, slug: str) -> str:
        """Return the text of a section."""
        lines = DOCS.joinpath(f"{self.name}.md").read_text().splitlines()
        starts = [*(start for start, _, _ in self.starts), len(lines) + 1]
        at = [known for _, known, _ in self.starts].index(slug)
        return "\n".join(lines[starts[at] - 1 : starts[at + 1] - 1])


def slug_of(heading: str) -> str:
    """Return the anchor of a heading, as MyST and GitHub make it."""
    return re.sub(r"[^\w\u4e00-\u9fff\- ]", "", heading.lower().strip()).replace(" ", "-")


# The table.


def all_uses() -> Iterator[Use]:
    """Yield all uses; this runs the programs that have changed, or the tests of the samples."""
    for page in [*WITH_OUTPUT, *PLAIN, *OF_TESTS]:
        yield from kept([page], functools.partial(of_page, page))
    yield from kept([*sorted((ROOT / "samples").glob("*.py"))], of_samples)


def kept(files: list[Path], run: Callable[[], Iterator[Use]]) -> list[Use]:
    """Return what *run* yields, or has yielded the last time, if *files* are still the same."""
    sources = [file.read_text() for file in [*files, *sorted(SEEING.glob("*.py"))]]
    sources += [inspect.getsource(part) for part in (Use, read, used_by_name, Sections)]
    digest = hashlib.sha256("".join(sources).encode()).hexdigest()
    known = KEPT / f"{digest}.json"
    if known.exists():
        loaded = json.loads(known.read_text())
        return [Use(key, place, weak, tuple(owners)) for key, place, weak, owners in loaded]
    print(files[-1].relative_to(ROOT), file=sys.stderr)
    uses = [*dict.fromkeys(run())]
    KEPT.mkdir(parents=True, exist_ok=True)
    known.write_text(json.dumps(uses))
    return uses


def found(uses: Iterable[Use]) -> dict[str, list[str]]:
    """Return all places of each public name, the best first; weak ones if there are no others."""
    pages = [
        str(page.relative_to(DOCS).with_suffix("")) for page in [*WITH_OUTPUT, *PLAIN, *OF_TESTS]
    ]

    def rank(place: str) -> tuple[int, str]:
        page = place.partition("#")[0]
        return (pages.index(page) if page in pages else len(pages), place)

    strong: defaultdict[str, set[str]] = defaultdict(set)
    weak: defaultdict[str, set[str]] = defaultdict(set)
    for use in uses:
        for name in keys().get(use.key, ()):
            holder = public().get(name.rpartition(".")[0])
            inherited = isinstance(holder, type) and key_of(holder) not in use.owners
            (weak if use.weak or inherited else strong)[name].add(use.place)
    return {name: sorted(strong[name] or weak[name], key=rank) for name in public()}


def best(places: list[str]) -> list[str]:
    """Return those of *places* that are kept."""
    on_pages: dict[str, str] = {}
    for place in places:
        if not place.startswith("samples/"):
            on_pages.setdefault(place.partition("#")[0], place)
    samples = [place for place in places if place.startswith("samples/")]
    samples.sort(key=lambda place: len((ROOT / place).read_text()))
    return [*list(on_pages.values())[:PAGES], *samples[:SAMPLES]]


@functools.cache
def table() -> dict[str, list[str]]:
    """Return what is in docs/examples.json."""
    loaded: dict[str, list[str]] = json.loads(TABLE.read_text())
    return loaded


@functools.cache
def sections(name: str) -> Sections:
    """Return the sections of the page of that name."""
    return Sections(DOCS / f"{name}.md")


def title(place: str) -> str:
    """Return what a link to a place on a page says."""
    page, _, slug = place.partition("#")
    return sections(page).title(slug)


def text(place: str) -> str:
    """Return the text of a place: a section of a page, or a sample."""
    page, _, slug = place.partition("#")
    return sections(page).text(slug) if slug else (ROOT / place).read_text()


def wrong(places: dict[str, list[str]]) -> list[str]:
    """Return what is wrong with a table: names without a place, and places without the name.

    A name may be used there by syntax, by a ``with`` block or by another class; then the place is
    only looked for.
    """
    found = [f"{name}: no example" for name in public() if not places.get(name)]
    found += [f"{name}: not public" for name in places if name not in public()]
    for name, listed in places.items():
        for place in listed:
            try:
                there = text(place)
            except (OSError, ValueError):
                found.append(f"{name}: there is no {place}")
                continue
            last = name.rpartition(".")[2]
            value = public().get(name)
            if isinstance(value, type) or last.startswith("__") or last == "close":
                continue
            if not re.search(rf"\b{last}\b", there):
                found.append(f"{name}: not in {place}")
    return found


if __name__ == "__main__":
    made = {name: best(places) for name, places in sorted(found(all_uses()).items())}
    rows = [f"{json.dumps(name)}: {json.dumps(places)}" for name, places in made.items()]
    TABLE.write_text("{\n" + ",\n".join(rows) + "\n}\n")
    missing = [name for name, places in made.items() if not places]
    print(f"{len(made)} names, {len(missing)} without an example: {', '.join(missing) or 'none'}")
