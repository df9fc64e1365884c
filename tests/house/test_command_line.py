"""The command line as a whole: its commands, their help, completion, colours, and the samples."""

from __future__ import annotations

import importlib.metadata
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import libevent_py
from libevent_py import EventBase
from libevent_py.__main__ import main
from libevent_py._cli import program
from libevent_py._cli import samples as samples_command
from libevent_py._cli.commands import COMMANDS
from tests.kit.support import PATIENCE, ROOT

PROGRAM = [sys.executable, "-X", "dev", "-W", "error", "-m", "libevent_py"]
SAMPLES = {path.stem for path in (ROOT / "samples").glob("*.py")} - {"__init__"}


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own."""
    return subprocess.run(
        [*PROGRAM, *arguments], capture_output=True, text=True, timeout=PATIENCE, cwd=ROOT
    )


def test_without_arguments_it_tells_versions_and_commands(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([]) == 0
    first, empty, usage, *lines = capsys.readouterr().out.splitlines()
    with EventBase() as base:
        package = importlib.metadata.version("libevent_py")
        version = libevent_py.libevent_version
        assert first == f"libevent_py {package}, libevent {version}, backend {base.method}"
    assert (empty, usage) == ("", "usage: python -m libevent_py COMMAND [ARGUMENT ...]")
    listed = [line.split()[0] for line in lines if re.match(r"  \w+  ", line)]
    assert listed == [command.name for command in COMMANDS]
    assert main(["--help"]) == 0
    assert capsys.readouterr().out.splitlines() == [usage, *lines]
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == first + "\n"


@pytest.mark.parametrize("command", [command.name for command in COMMANDS])
def test_each_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: python -m libevent_py {command} ")


@pytest.mark.parametrize("command", [command.name for command in COMMANDS])
def test_each_command_refuses_an_option_that_it_has_not(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--no-such-option"])
    assert ended.value.code == 2
    assert f"usage: python -m libevent_py {command} " in capsys.readouterr().err


@pytest.mark.parametrize(
    "command", [c for c in COMMANDS if c.name not in ("serve", "trace", "compare")]
)
def test_the_examples_run(command: object, capfd: pytest.CaptureFixture[str]) -> None:
    example = command.example.split()  # type: ignore[attr-defined]
    if example[:2] == ["samples", "run"]:  # it serves for ever
        example[1] = "show"
    assert main(example) == 0
    assert capfd.readouterr().out


def test_the_script_calls_itself_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/usr/bin/libevent-py"])
    assert program.program("find") == "libevent-py find"
    monkeypatch.setattr(sys, "argv", ["/somewhere/__main__.py"])
    assert program.program() == "python -m libevent_py"


# Colours.


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "environment", "expected"),
    [
        (Terminal(), {"TERM": "xterm"}, "\033[31mtext\033[0m"),
        (Terminal(), {"TERM": "dumb"}, "text"),
        (Terminal(), {"TERM": "xterm", "NO_COLOR": "1"}, "text"),
        (io.StringIO(), {"TERM": "xterm"}, "text"),
    ],
)
def test_only_a_terminal_gets_colours(
    stream: io.StringIO,
    environment: dict[str, str],
    expected: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert program.painted("text", "red", stream) == expected


# What find finds, for programs.


@pytest.mark.parametrize(
    ("arguments", "status", "names"),
    [
        (["event_add"], 0, ["event_add"]),
        (["event_add", "evutil_strtoll"], 1, ["event_add", "evutil_strtoll"]),
        (["event_ad"], 2, ["event_ad"]),
        (["evconnlistener_*able"], 0, ["evconnlistener_disable", "evconnlistener_enable"]),
        (["evconnlistener_get_*"], 1, ["evconnlistener_get_base", "evconnlistener_get_fd"]),
        (["nothing_like_*"], 2, []),
        (["EV_READ"], 0, ["EV_READ"]),
    ],
)
def test_what_is_found_can_be_read_by_programs(
    arguments: list[str], status: int, names: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["find", "--json", *arguments]) == status
    found = json.loads(capsys.readouterr().out)
    assert list(found) == names
    for name, known in found.items():
        if name == "event_add":
            assert [place["names"] for place in known["python"]] == [["Event.add"]]
        if name == "evutil_strtoll":
            assert known["why_not"] == "int() does it"
            assert known["in_lib"]
        if name == "EV_READ":
            assert known["members"] == ["EventFlag.READ"]


def test_find_wants_a_name(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["find"])
    assert ended.value.code == 2
    assert "give a name, such as event_add" in capsys.readouterr().err


# Completion.


def test_bash_completes_commands_and_options() -> None:
    script = run("completion", "bash").stdout

    def completed(*words: str) -> set[str]:
        quoted = " ".join(word or "''" for word in words)
        function = "$(complete -p libevent-py | sed 's/.*-F \\([^ ]*\\).*/\\1/')"
        asks = (
            f"COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}; {function}; "
            'printf "%s\\n" "${COMPREPLY[@]}"'
        )
        done = subprocess.run(
            ["bash", "--norc", "-c", f"{script}\n{asks}"],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        return {line.strip() for line in done.stdout.splitlines() if line.strip()}

    assert {command.name for command in COMMANDS} <= completed("libevent-py", "")
    assert {"--inject", "--json", "--backend"} <= completed("libevent-py", "trace", "--")
    assert completed("libevent-py", "completion", "b") == {"bash"}


def test_without_shtab_completion_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert main(["completion", "bash"]) == 1
    assert "pip install 'libevent_py[completion]'" in capsys.readouterr().err


# Samples.


def test_the_samples_are_listed_with_what_they_show(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["samples"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert {line.split()[0] for line in lines} == SAMPLES
    assert main(["samples", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["pair"].startswith("Two bufferevents that talk to each other in memory")
    assert set(told) == SAMPLES


def test_a_sample_runs_with_its_arguments_and_its_status() -> None:
    done = run("samples", "run", "methods")
    assert (done.returncode, done.stderr) == (0, "")
    with EventBase() as base:
        assert base.method in done.stdout
    wrong = run("samples", "run", "upper_listener", "--no-such-host", "1")
    itself = subprocess.run(
        [sys.executable, "samples/upper_listener.py", "--no-such-host", "1"],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        cwd=ROOT,
    )
    assert wrong.returncode == itself.returncode != 0
    assert wrong.stderr.splitlines()[-1] == itself.stderr.splitlines()[-1]


def test_a_sample_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["samples", "show", "pair"]) == 0
    assert capsys.readouterr().out == (ROOT / "samples" / "pair.py").read_text()
    assert main(["samples", "show", "--c", "pair"]) == 0
    assert capsys.readouterr().out == (ROOT / "samples" / "c" / "pair.c").read_text()


def test_a_sample_is_copied_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["samples", "copy", "pair", str(tmp_path / "mine")]) == 0
    copy = tmp_path / "mine" / "pair.py"
    assert capsys.readouterr().out == f"{copy}\n"
    assert copy.read_text() == (ROOT / "samples" / "pair.py").read_text()
    copy.write_text("changed")
    assert main(["samples", "copy", "pair", str(copy.parent)]) == 2
    assert copy.read_text() == "changed"
    assert f"{copy} is there already" in capsys.readouterr().err


def test_several_samples_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["samples", "show", "pair", "methods"]) == 0
    texts = [(ROOT / "samples" / f"{name}.py").read_text() for name in ("pair", "methods")]
    assert capsys.readouterr().out == "\n".join(texts)
    assert main(["samples", "show", "pair", "no_such"]) == 2
    assert capsys.readouterr().out == ""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "headers", "libraries"),
    [
        ("pair", ["sample.h"], "-levent_core"),
        ("upper_delimited", ["sample.h"], "-levent_core"),
        ("filter_zlib", ["sample.h"], "-levent_core -lz"),
        ("dns_example", ["names.h", "sample.h"], "-levent_extra -levent_core"),
        ("le_proxy", ["sample.h", "tls.h"], "-levent_openssl -levent_core -lssl -lcrypto"),
    ],
)
def test_a_twin_is_copied_with_what_it_includes_and_how_it_is_compiled(
    name: str,
    headers: list[str],
    libraries: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    place = tmp_path / "my samples"
    assert main(["samples", "copy", "--c", name, str(place)]) == 0
    *files, compiling = capsys.readouterr().out.splitlines()
    copies = {f"{name}.c", *headers}
    assert {Path(file).name for file in files} == copies == {each.name for each in place.iterdir()}
    command = compiling.removeprefix("Compile it by: ")
    assert command.endswith(f".c' {libraries}")
    subprocess.run(command, shell=True, check=True, timeout=PATIENCE)
    done = subprocess.run([place / name, "--help"], capture_output=True, timeout=PATIENCE)
    assert done.returncode == 0


def test_each_twin_is_linked_with_what_it_includes(tmp_path: Path) -> None:
    for twin in (ROOT / "samples" / "c").glob("*.c"):
        found = samples_command.files(twin.stem, True)
        assert "-levent_core" in samples_command.compiling(found, tmp_path)
        assert all(file.exists() for file in found)


def test_headers_that_are_there_are_left_as_they_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    header = tmp_path / "sample.h"
    assert main(["samples", "copy", "--c", "pair", str(tmp_path)]) == 0
    assert main(["samples", "copy", "--c", "methods", str(tmp_path)]) == 0
    said = capsys.readouterr()
    assert (said.out.count(f"{header}\n"), said.err) == (1, "")
    header.write_text("mine")
    assert main(["samples", "copy", "--c", "priorities", str(tmp_path)]) == 0
    assert f"{header} is another one, and is left as it is" in capsys.readouterr().err
    assert header.read_text() == "mine"


def test_a_copy_that_can_not_be_written_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert main(["samples", "copy", "pair", str(tmp_path / "file" / "below")]) == 2
    assert "Not a directory" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "hint"),
    [("pear", "did you mean pair?"), ("xyzzy", "python -m libevent_py samples lists them")],
)
def test_an_unknown_sample_is_told(
    name: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["samples", "show", name]) == 2
    assert capsys.readouterr().err == f"libevent_py: samples: there is no sample {name}; {hint}\n"


def test_a_sample_without_a_twin_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["samples", "show", "--c", "rpc_weather"]) == 2
    assert "rpc_weather has no twin in C" in capsys.readouterr().err


def test_a_wheels_samples_come_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text('"""One of the wheel\'s."""\n')
    monkeypatch.setattr(samples_command, "PLACES", (tmp_path, *samples_command.PLACES))
    assert samples_command.samples() == {"own": "One of the wheel's."}


def test_the_documents_examples_are_true(capsys: pytest.CaptureFixture[str]) -> None:
    text = (ROOT / "docs" / "command-line.md").read_text()
    examples = re.findall(r"^\$ libevent-py (.*)\n((?:[^$`].*\n)+)", text, re.MULTILINE)
    assert examples
    line = re.compile(r":\d+$", re.MULTILINE)
    for arguments, said in examples:
        assert main(arguments.split()) == 0
        assert line.sub(":", capsys.readouterr().out) == line.sub(":", said)


def test_the_documents_table_has_every_command() -> None:
    text = (ROOT / "docs" / "command-line.md").read_text()
    told = set(re.findall(r"^\| `(\w+)", text, re.MULTILINE))
    assert told == {command.name for command in COMMANDS}
