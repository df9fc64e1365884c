"""vendor/fetch.py lets in libevent's headers as released, or as a listed patch left them."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from vendor import fetch

HEADERS = fetch.headers()
RELEASE = fetch.verify(HEADERS)
PATH = os.environ["PATH"]
DPKG_DEB = shutil.which("dpkg-deb")


@pytest.fixture
def include(tmp_path: Path) -> Path:
    """A copy of the headers, to spoil."""
    return Path(shutil.copytree(HEADERS, tmp_path / "include"))


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with no headers, and the directory its commands are in: none yet."""
    vendor, commands = tmp_path / "vendor", tmp_path / "bin"
    vendor.mkdir()
    commands.mkdir()
    monkeypatch.setattr(fetch, "VENDOR", vendor)
    monkeypatch.setattr(fetch, "VENDORED", vendor / "include")
    monkeypatch.setattr(fetch, "PLACES", [])
    monkeypatch.setenv("PATH", str(commands))
    return commands


def command(directory: Path, name: str, script: str) -> None:
    path = directory / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def refusal(include: Path) -> str:
    with pytest.raises(fetch.HeadersError) as refused:
        fetch.verify(include)
    assert fetch.INSTALL in str(refused.value)
    return str(refused.value)


def without_patch(header: bytes) -> bytes:
    """util.h as released, whether or not it is Debian's."""
    (patch,) = (
        patch
        for patch in fetch.PINNED["patch"]
        if (patch["release"], patch["header"]) == (RELEASE, "util.h")
    )
    if fetch.digest(header) == fetch.RELEASES[RELEASE]["util.h"]:
        return header
    lines = header.splitlines(keepends=True)
    for number, line in patch["left_out"].items():
        lines.insert(int(number) - 1, f"{line}\n".encode())
    return b"".join(lines)


def test_each_release_pins_the_same_headers_by_sha256() -> None:
    first, *others = fetch.RELEASES.values()
    assert all(other.keys() == first.keys() for other in others)
    assert "event-config.h" not in first
    for hashes in fetch.RELEASES.values():
        assert all(re.fullmatch(r"[0-9a-f]{64}", sha256) for sha256 in hashes.values())


def test_a_changed_header_is_refused_by_name_and_reason(include: Path) -> None:
    header = include / "event2" / "buffer.h"
    header.write_text(header.read_text().replace("size_t", "int", 1))
    said = refusal(include)
    assert (
        f"{header} is not libevent {RELEASE}'s: its sha256 is {fetch.digest(header.read_bytes())}"
        in said
    )
    assert fetch.RELEASES[RELEASE]["buffer.h"] in said


def test_a_missing_header_is_refused_by_name(include: Path) -> None:
    (include / "event2" / "http.h").unlink()
    assert f"{include}/event2/http.h is missing" in refusal(include)


def test_another_release_is_refused_by_name(include: Path) -> None:
    config = include / "event2" / "event-config.h"
    config.write_text(config.read_text().replace(RELEASE, "2.0.22-stable"))
    said = refusal(include)
    assert f"{config} is of libevent 2.0.22-stable" in said
    assert "2.1.12-stable or 2.1.13-stable" in said


def test_headers_without_event_config_are_refused(include: Path) -> None:
    (include / "event2" / "event-config.h").unlink()
    assert f"{include}/event2/event-config.h is missing" in refusal(include)


def test_the_release_may_be_defined_in_a_header_that_event_config_includes(include: Path) -> None:
    config = include / "event2" / "event-config.h"
    config.rename(config.with_name("event-config-64.h"))
    config.write_text('#include "event-config-64.h"\n')
    assert fetch.verify(include) == RELEASE


def test_a_header_is_accepted_as_released_and_with_just_the_lines_of_a_listed_patch(
    include: Path,
) -> None:
    header = include / "event2" / "util.h"
    released = without_patch(header.read_bytes())
    assert fetch.digest(released) == fetch.RELEASES[RELEASE]["util.h"]
    header.write_bytes(released)
    assert fetch.verify(include) == RELEASE

    lines = released.splitlines(keepends=True)
    patched = b"".join(lines[:864] + lines[865:881] + lines[882:])
    header.write_bytes(patched)
    assert fetch.verify(include) == RELEASE

    header.write_bytes(patched.replace(b"size_t datlen", b"int datlen"))
    assert "no difference listed in vendor/libevent.toml explains that" in refusal(include)
    header.write_bytes(b"".join(lines[:864] + lines[865:]))
    assert f"{header} is not libevent" in refusal(include)


def test_a_header_of_another_release_is_accepted_only_where_it_is_listed(include: Path) -> None:
    listed = [patch for patch in fetch.PINNED["patch"] if "as_in" in patch]
    for patch in listed:
        assert patch["header"] in fetch.RELEASES[patch["as_in"]]
    assert [(patch["release"], patch["header"]) for patch in listed] == [("2.1.12-stable", "tag.h")]


def test_headers_that_are_there_are_verified_and_used(bare: Path, include: Path) -> None:
    shutil.copytree(include, fetch.VENDORED)
    assert fetch.headers() == fetch.VENDORED

    (fetch.VENDORED / "event2" / "event.h").write_text("")
    with pytest.raises(fetch.HeadersError, match=f"event.h is not .* Or delete {fetch.VENDORED}"):
        fetch.headers()


def test_installed_headers_are_copied_and_nothing_beside_them(
    bare: Path, include: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "PLACES", [include / "nothing", include])
    (include / "event2" / "stranger.h").write_text("")
    assert fetch.verify(fetch.headers()) == RELEASE
    assert not (fetch.VENDORED / "event2" / "stranger.h").exists()
    assert list(fetch.VENDOR.iterdir()) == [fetch.VENDORED]


@pytest.fixture
def partial(bare: Path, include: Path) -> Path:
    """The headers of an sdist on a bare machine: all that are the same everywhere."""
    shutil.copytree(include, fetch.VENDORED)
    for config in (fetch.VENDORED / "event2").glob("event-config*.h"):
        config.unlink()
    return fetch.VENDORED / "event2"


def test_what_an_sdist_lacks_comes_from_what_is_installed(
    partial: Path, include: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = include / "event2" / "event-config.h"
    config.write_text(f"{config.read_text()}/* installed */\n")
    monkeypatch.setattr(fetch, "PLACES", [include])
    fetch.headers()
    assert (partial / "event-config.h").read_text().endswith("/* installed */\n")


@pytest.mark.parametrize("installed", ["nothing", "what is refused"])
def test_what_an_sdist_lacks_is_made_without_a_network(
    partial: Path,
    include: Path,
    installed: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (include / "event2" / "dns.h").write_text("")
    monkeypatch.setattr(fetch, "PLACES", [include] if installed != "nothing" else [])
    assert fetch.verify(fetch.headers()) == RELEASE
    said = capsys.readouterr().err
    assert (f"own copy of the headers, as {include}/event2/dns.h is not" in said) == (
        installed != "nothing"
    )
    made = (partial / "event-config.h").read_text()
    number = "".join(f"{int(part):02x}" for part in RELEASE.partition("-")[0].split("."))
    assert f"#define EVENT__NUMERIC_VERSION 0x{number}00\n" in made
    assert "@" not in made
    assert list(fetch.VENDOR.iterdir()) == [fetch.VENDORED]


def test_the_headers_of_an_sdist_are_verified_before_they_are_completed(partial: Path) -> None:
    (partial / "event.h").write_text("")
    with pytest.raises(fetch.HeadersError, match=f"event.h is not .* Or delete {fetch.VENDORED}"):
        fetch.headers()
    assert not (partial / "event-config.h").exists()


def test_pkg_config_says_where_the_headers_are(bare: Path, include: Path) -> None:
    command(
        bare, "pkg-config", f'[ "$*" = "--variable=includedir libevent_core" ] && echo {include}'
    )
    assert fetch.installed() == include


def test_refused_headers_leave_those_that_were_there(bare: Path, include: Path) -> None:
    fetch.take(include)
    (include / "event2" / "dns.h").unlink()
    with pytest.raises(fetch.HeadersError):
        fetch.take(include)
    assert fetch.verify(fetch.VENDORED) == RELEASE


def test_with_no_headers_anywhere_the_error_says_what_to_install(bare: Path) -> None:
    with pytest.raises(fetch.HeadersError) as refused:
        fetch.headers()
    said = str(refused.value)
    assert said.startswith("libevent's headers are not installed.")
    assert all(package in said for package in ("libevent-dev", "libevent-devel", "apk", "brew"))
    assert "\n" not in said
    assert not fetch.VENDORED.exists()


def test_with_no_network_the_error_says_what_apt_said_and_what_to_install(bare: Path) -> None:
    command(bare, "apt-get", "echo 'W: No sandbox\nE: No network' >&2; exit 100")
    command(bare, "dpkg-deb", "exit 1")
    with pytest.raises(fetch.HeadersError) as refused:
        fetch.headers()
    said = str(refused.value)
    assert said == (
        "libevent's headers are not installed, and `apt-get download libevent-dev` failed "
        f"(E: No network). {fetch.INSTALL}"
    )


# Elsewhere than on Debian nobody unpacks its packages: the headers are those installed.
@pytest.mark.skipif(not DPKG_DEB, reason="needs Debian's dpkg-deb")
def test_debians_package_is_unpacked_without_installing_it(
    bare: Path, include: Path, tmp_path: Path
) -> None:
    package = tmp_path / "package"
    (package / "DEBIAN").mkdir(parents=True)
    (package / "DEBIAN" / "control").write_text(
        "Package: libevent-dev\nVersion: 2.1\nArchitecture: all\n"
        "Maintainer: Nobody <nobody@example.org>\nDescription: headers\n"
    )
    shutil.copytree(include, package / "usr" / "include")
    path = f"PATH={PATH}"
    command(bare, "dpkg-deb", f'{path} exec {DPKG_DEB} "$@"')
    command(bare, "apt-get", f'[ "$*" = "download libevent-dev" ] && {path} cp {tmp_path}/it.deb .')
    fetch.run(["dpkg-deb", "--build", str(package), "it.deb"], str(tmp_path))
    assert fetch.verify(fetch.headers()) == RELEASE


def test_the_command_line_refuses_in_one_paragraph(tmp_path: Path) -> None:
    command = [sys.executable, fetch.__file__, "--from", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stdout == ""
    missing = f"vendor/fetch.py: {tmp_path}/event2/event-config.h is missing. {fetch.INSTALL}\n"
    assert done.stderr == missing


def test_the_command_line_says_what_it_has(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, fetch.__file__], capture_output=True, text=True, timeout=60
    )
    assert done.stdout == f"{fetch.VENDORED}: libevent {RELEASE}\n"
