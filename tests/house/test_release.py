"""``python -m vendor.release`` makes what is to be released, and refuses what shouldn't be."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import re
import shutil
import subprocess
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

import libevent_py
from tests.kit.once import once
from tests.kit.support import ROOT
from vendor import release
from vendor.release import Made, Wrong

VERSION = libevent_py.__version__


def git(place: Path, *command: str) -> None:
    told = ("-c", "user.name=nobody", "-c", "user.email=nobody@example.org")
    subprocess.run(["git", *told, *command], cwd=place, check=True, capture_output=True, timeout=60)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A repository with as much as the first checks read."""
    place = tmp_path / "tree"
    (place / "libevent_py").mkdir(parents=True)
    (place / "libevent_py" / "__init__.py").write_text('__version__ = "1.2.3"\n')
    (place / "CHANGELOG.md").write_text("# Changelog\n\n## Unreleased\n\n### Added\n\n- All.\n")
    git(tmp_path, "init", "--quiet", str(place))
    git(place, "add", ".")
    git(place, "commit", "--quiet", "--message", "all")
    return place


def test_what_is_not_committed_is_not_released(tree: Path) -> None:
    release.check_tree(tree)
    (tree / "stray").touch()
    with pytest.raises(Wrong, match=r"not committed:\n.. stray"):
        release.check_tree(tree)


def test_the_changelog_must_have_something(tree: Path) -> None:
    release.check_version(tree)
    (tree / "CHANGELOG.md").write_text("# Changelog\n\n## Unreleased\n\n## 1.2.2 - 2025-01-01\n")
    with pytest.raises(Wrong, match=r"neither a heading for 1\.2\.3 nor"):
        release.check_version(tree)


def test_at_last_the_changelog_must_have_the_version_and_git_no_tag_of_it(tree: Path) -> None:
    with pytest.raises(Wrong, match=r'no heading "## 1\.2\.3 - YYYY-MM-DD"'):
        release.check_version(tree, final=True)
    (tree / "CHANGELOG.md").write_text("# Changelog\n\n## 1.2.3 - 2026-01-01\n")
    release.check_version(tree, final=True)
    git(tree, "tag", "v1.2.3")
    with pytest.raises(Wrong, match=r"a tag v1\.2\.3 already"):
        release.check_version(tree, final=True)


def test_the_version_is_that_of_the_package(tree: Path) -> None:
    source = (ROOT / "libevent_py" / "__init__.py").read_text()
    assert release.version(source) == VERSION
    with pytest.raises(Wrong, match="no __version__"):
        release.version("")


def test_a_command_that_fails_is_quoted() -> None:
    with pytest.raises(Wrong, match=r"(?s)pip nonsense: status 1.*nonsense"):
        release.python("pip", "nonsense")


def test_a_stub_that_lacks_or_invents_a_name_is_refused() -> None:
    stub = (ROOT / "libevent_py" / "_ffi.pyi").read_text()
    release.check_stub(stub)
    with pytest.raises(Wrong, match=r"lacks \['event_add'\]"):
        release.check_stub(re.sub(r"    def event_add\(.*\n", "", stub))
    with pytest.raises(Wrong, match=r"too much: \['invented'\]"):
        release.check_stub(stub.replace("    errno: int\n", "    errno: int\n    invented: int\n"))


# What was made. One that is known to be well is made by hand, as making the real one takes long.


@pytest.fixture
def made(tmp_path: Path) -> Made:
    """A source distribution, and no wheels."""
    listed = subprocess.run(
        ["git", "ls-tree", "-r", "--name-only", "HEAD"], cwd=ROOT, capture_output=True, text=True
    )
    headers = (path for path in (ROOT / "vendor" / "include" / "event2").glob("*.h"))
    names = [*listed.stdout.splitlines(), *release.ADDED]
    names += [f"vendor/include/event2/{path.name}" for path in headers if "config" not in path.name]
    sdist = tmp_path / "libevent_py-0.tar.gz"
    write(sdist, {name: b"" for name in names if name != ".gitignore"})
    return Made(sdist, [])


def write(sdist: Path, contents: dict[str, bytes], **told: int) -> None:
    with tarfile.open(sdist, "w:gz") as archive:
        for name, content in contents.items():
            member = tarfile.TarInfo(f"libevent_py-0/{name}")
            member.size = len(content)
            for key, value in told.items():
                setattr(member, key, value)
            archive.addfile(member, io.BytesIO(content))


def names_in(sdist: Path) -> list[str]:
    with tarfile.open(sdist) as archive:
        return [name.partition("/")[2] for name in archive.getnames()]


@pytest.mark.parametrize("stranger", ["vendor/include/event2/event-config.h", "notes.txt"])
def test_a_source_distribution_has_no_more_than_is_committed(made: Made, stranger: str) -> None:
    release.check_sdist(made)
    write(made.sdist, dict.fromkeys([*names_in(made.sdist), stranger], b""))
    with pytest.raises(Wrong, match=f"has what is not committed: {stranger}"):
        release.check_sdist(made)


@pytest.mark.parametrize("name", ["setup.py", "vendor/include/event2/event.h", "PKG-INFO"])
def test_a_source_distribution_has_all_that_is_committed(made: Made, name: str) -> None:
    write(made.sdist, dict.fromkeys([each for each in names_in(made.sdist) if each != name], b""))
    with pytest.raises(Wrong, match=f"lacks {name}"):
        release.check_sdist(made)


def test_what_differs_in_two_archives_is_named(tmp_path: Path) -> None:
    one, other = (Made(tmp_path / name / "it.tar.gz", []) for name in ("one", "other"))
    for each in (one, other):
        each.sdist.parent.mkdir()
    changes: list[tuple[dict[str, bytes], dict[str, int]]]
    changes = [({"a": b"2"}, {}), ({"a": b"1"}, {"mode": 0o600}), ({"a": b"1"}, {"mtime": 9})]
    write(one.sdist, {"a": b"1", "b": b""})
    for content, told in changes:
        write(other.sdist, {**content, "b": b""})
        if told:
            write(other.sdist, {**content, "b": b""}, **told)
        with pytest.raises(Wrong, match=r"is not the same. What differs: libevent_py-0/a"):
            release.check_twins(one, other)
    shutil.copy(one.sdist, other.sdist)
    release.check_twins(one, other)


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    """Where a wheel is to be packed."""
    return tmp_path / f"libevent_py-{VERSION}-cp310-abi3-linux_x86_64.whl"


def pack(wheel: Path, metadata: str, files: dict[str, bytes]) -> Made:
    info = f"libevent_py-{VERSION}.dist-info"
    tag = "Wheel-Version: 1.0\nRoot-Is-Purelib: false\nTag: cp310-abi3-linux_x86_64\n"
    whole = files | {f"{info}/METADATA": metadata.encode(), f"{info}/WHEEL": tag.encode()}
    record = f"{info}/RECORD,,\n"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, content in whole.items():
            archive.writestr(name, content)
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=")
            record += f"{name},sha256={digest.decode()},{len(content)}\n"
        archive.writestr(f"{info}/RECORD", record)
    return Made(wheel, [wheel])


METADATA = f"""Metadata-Version: 2.4
Name: libevent_py
Version: {VERSION}
Summary: none
Description-Content-Type: text/markdown
Classifier: {{}}

# A text
"""


def test_a_classifier_that_there_is_not_is_refused(wheel: Path) -> None:
    pack(wheel, METADATA.format("Programming Language :: C"), {})
    release.check_metadata(Made(wheel, [wheel]))
    pack(wheel, METADATA.format("Programming Language :: Cobol on Cogs"), {})
    with pytest.raises(Wrong, match="classifiers that there aren't: Programming Language :: Cobol"):
        release.check_metadata(Made(wheel, [wheel]))


def test_a_text_that_the_index_can_not_show_is_refused(wheel: Path) -> None:
    bad = METADATA.replace("text/markdown", "text/x-rst").replace("# A text", ".. nothing::\n\n`x")
    pack(wheel, bad.format("Programming Language :: C"), {})
    with pytest.raises(Wrong, match="twine"):
        release.check_metadata(Made(wheel, [wheel]))


MODULE = """
#include <Python.h>
PyObject *PyInit__ffi(void) {{ return {}; }}
"""


@pytest.mark.parametrize(
    ("body", "refused"),
    [
        ("PyLong_FromLong(1)", False),
        ("PyUnicode_AsUTF8AndSize(0, 0) ? Py_None : 0", False),  # since 3.10
        ("(PyObject *)PyType_GetName(0)", True),  # since 3.11
        ("PyList_AsTuple(_PyLong_New(1))", True),  # never
    ],
)
def test_a_module_that_is_not_for_the_pythons_of_its_tag_is_refused(
    wheel: Path, tmp_path: Path, body: str, refused: bool
) -> None:
    module = tmp_path / "_ffi.abi3.so"
    command = ["gcc", "-shared", "-fPIC", "-w", "-x", "c", "-", "-o", str(module)]
    source = MODULE.format(body).replace("<Python.h>", '"Python.h"')
    subprocess.run(
        [*command, f"-I{sysconfig.get_path('include')}"],
        input=source, text=True, check=True, timeout=60,
    )  # fmt: skip
    files = {"libevent_py/__init__.py": b"x = 1\n", "libevent_py/_ffi.abi3.so": module.read_bytes()}
    pack(wheel, METADATA.format("Programming Language :: C"), files)
    if refused:
        with pytest.raises(Wrong, match="abi3audit"):
            release.check_wheels(Made(wheel, [wheel]))
    else:
        release.check_wheels(Made(wheel, [wheel]))


def test_a_wheel_with_tests_in_it_is_refused(wheel: Path) -> None:
    files = {"libevent_py/__init__.py": b"x = 1\n", "tests/__init__.py": b"x = 2\n"}
    pack(wheel, METADATA.format("Programming Language :: C"), files)
    with pytest.raises(Wrong, match="W005: Wheel contains common toplevel name"):
        release.check_wheels(Made(wheel, [wheel]))


def test_the_classifiers_name_the_pythons_that_are_tested() -> None:
    makefile = (ROOT / "Makefile").read_text()
    (versions,) = re.findall(r"^VERSIONS := (.*)$", makefile, re.MULTILINE)
    tested = set(versions.split())
    project = (ROOT / "pyproject.toml").read_text()
    named = set(re.findall(r'"Programming Language :: Python :: (3\.\d+)"', project))
    assert named == tested
    assert f'requires-python = ">={min(tested, key=lambda v: int(v[2:]))}"' in project


# The real ones.


@pytest.mark.more
@pytest.mark.skipif(not Path("/etc/debian_version").exists(), reason="the licences are Debian's")
def test_all_is_as_it_should_be(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CFLAGS", "-O0")  # that takes half of the time
    said: list[str] = []

    def make(out: Path) -> None:
        release.release(out, False, False, said.append)

    out = once(tmp_path_factory, "release", make)
    wrong = [line for line in said if line.startswith("FAILED")]
    # A working copy in which somebody works has what isn't committed.
    wrong = [line for line in wrong if not line.startswith("FAILED  all is committed")]
    assert not wrong, "\n".join(wrong)
    assert len([line for line in said if line.startswith("ok ")]) >= 8
    listed = (out / "SHA256SUMS").read_text().split()[1::2]
    assert sorted([*listed, "SHA256SUMS"]) == sorted(os.listdir(out))
