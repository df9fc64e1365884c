"""The tests on another build of libevent: ``python -m tests.kit.builds NAME [PYTEST-ARGUMENT…]``.

With ``--module MODULE`` it runs another module than pytest, such as ``tests.kit.fuzz``.

`vendor/builds.py` makes the build, and LD_LIBRARY_PATH puts it under the same Python. With the
sanitizers our own C is compiled anew, too, in a copy of the tree, so that the one at hand keeps
its module.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.kit.support import ROOT
from vendor import builds

#: What a sanitizer needs to be loaded before everything else.
RUNTIMES = {
    "asan": ["libasan.so", "libubsan.so"],
    "tsan": ["libtsan.so"],
    "fuzz": ["asan_with_fuzzer.so"],  # atheris has it: AddressSanitizer and libFuzzer in one
}

SUPPRESSIONS = Path(__file__).with_name("leaks.supp")
RACES = Path(__file__).with_name("races.supp")

#: What the sanitizers are told. They abort, so that a script's exit status tells.
OPTIONS = {
    # With the last one, LeakSanitizer reads where libraries that are loaded late have no data.
    "ASAN_OPTIONS": "abort_on_error=1:allocator_may_return_null=1:detect_stack_use_after_return=1"
    ":intercept_tls_get_addr=0",
    # Leaks are looked for by tests/kit/sanitized: at the end there is too much that isn't freed.
    "LSAN_OPTIONS": f"suppressions={SUPPRESSIONS}:print_suppressions=0:leak_check_at_exit=0",
    "PYTHONPATH": str(Path(__file__).with_name("sanitized")),
    "UBSAN_OPTIONS": "print_stacktrace=1",
    "TSAN_OPTIONS": f"halt_on_error=1:suppressions={RACES}",
    # Python's own allocator would hide what is within one of its arenas.
    "PYTHONMALLOC": "malloc",
}

#: libevent's own build doesn't link libevent_pthreads with libevent_core, as Debian's packages do.
UNLINKED = dict.fromkeys(
    [
        "tests/core/test_fork_locks.py::test_the_locks_do_what_libevent_s_own_do",
        "tests/core/test_fork_locks.py::test_locks_that_somebody_else_has_set_are_used",
    ],
    "they load libevent_pthreads alone",
)

#: What can't be tested with each build, and why.
LEFT_OUT = {
    "asan": {
        "tests/trace": "what is put before libevent comes before the sanitizer, too",
        **dict.fromkeys(
            ["tests/samples/test_twins.py", "tests/samples/test_twins_web.py"], "so does it here"
        ),
        "tests/testing/test_traces.py": "as tests/trace",
        "tests/testing/test_documentation.py": "an example is traced",
        "tests/testing/test_apart.py::test_a_process_of_its_own_ends_with_the_run": "its test is",
        "tests/regress/test_rpc_raw.py::test_terminated": "evrpc leaks a request that a hook ends",
        "tests/buffer/test_buffer_views.py::"
        "test_where_there_is_no_memory_everything_stays_as_it_was": "it replaces malloc, too",
        "tests/buffer/test_segment.py::"
        "test_a_socket_sends_a_file_larger_than_what_it_may_ever_have_in_memory": "it limits the "
        "address space, of which the sanitizer reserves 20 TB",
        "tests/http/test_http_server.py::test_a_file_is_sent_without_being_read_into_memory": "it "
        "measures memory, of which the sanitizer takes more",
        **dict.fromkeys(
            [
                "tests/bufferevent/test_ratelimit.py::"
                "test_replacing_limits_and_members_leaks_nothing",
                "tests/bufferevent/test_tls_ends.py::"
                "test_a_thousand_handshakes_leave_no_descriptor_and_no_memory",
                "tests/http/test_http_client.py::test_what_is_streamed_takes_no_memory",
                "tests/http/test_http_flow_lifetime.py::"
                "test_a_relay_to_who_reads_nothing_holds_little_memory",
                "tests/hostile/test_hostile_peers.py::"
                "test_ten_thousand_that_connect_and_leave_cost_no_memory",
                "tests/samples/test_samples_connections.py::"
                "test_who_takes_nothing_is_sent_no_more_than_fits",
                "tests/samples/test_samples_files.py::"
                "test_sendfile_needs_no_more_memory_and_descriptors_for_many_clients",
                "tests/samples/test_samples_http.py::"
                "test_http_stream_makes_no_more_numbers_than_are_taken",
                "tests/samples/test_samples_limits.py::"
                "test_a_client_that_takes_no_answers_is_not_read_from",
                *(
                    f"tests/samples/test_samples_http_proxy.py::test_{name}"
                    for name in (
                        "a_download_to_who_takes_nothing_costs_little_memory",
                        "an_upload_to_who_takes_nothing_costs_little_memory",
                        "much_goes_through_with_little_memory",
                        "who_says_more_before_he_has_the_answer_costs_little_memory",
                    )
                ),
            ],
            "the sanitizer holds back what is freed",
        ),
        "tests/core/test_fork_locks.py::"
        "test_no_thread_is_kept_out_of_libevent_once_a_fork_has_failed": "it becomes another user, "
        "who may not look for leaks",
        **dict.fromkeys(
            [
                "tests/core/test_threads.py::"
                "test_a_process_may_end_while_a_daemon_thread_runs_a_loop",
                "tests/core/test_fork_locks.py::"
                "test_what_another_thread_holds_for_long_is_lost_in_the_child",
            ],
            "a thread that runs on can't be stopped to look for leaks",
        ),
        "tests/core/test_fork_locks.py::"
        "test_other_processes_can_be_begun_while_another_thread_runs_a_loop[fork]": "what is "
        "on the other thread's stack looks like a leak in the child",
        "tests/event/test_threads.py::"
        "test_a_forked_child_leaves_the_thread_and_its_calls_to_the_parent": "the same",
        "tests/event/test_threads.py::"
        "test_a_block_that_is_never_left_ends_with_the_process": "the thread ends after leaks have "
        "been looked for",
        "tests/vulnerabilities/test_vulnerabilities.py::"
        "test_without_a_loopback_interface_what_needs_it_is_unknown": "its probes bring libevent's "
        "known faults about, which the sanitizer prints",
        **UNLINKED,
    },
    "tsan": {
        "tests/core/test_threads.py::"
        "test_a_process_may_end_while_a_daemon_thread_runs_a_loop": "it ends the sanitizer, too, "
        "while the thread runs",
    },
    "ndebug": {
        **UNLINKED,
        **dict.fromkeys(
            [
                "tests/rpc",
                "tests/regress/test_rpc.py",
                "tests/core/test_interrupts.py::"
                "test_a_pool_whose_close_is_interrupted_tells_its_calls",
                "tests/event/test_explain.py::test_rpc_calls_are_told",
                "tests/hostile/test_http_responses.py::"
                "test_bytes_on_an_idle_connection_don_t_end_the_process_when_the_next_fails[RPC]",
                "tests/core/test_closing_tells.py::"
                "test_a_child_forked_by_who_is_told_of_a_close_finds_it_closed",
                "tests/core/test_lifetime_across.py::test_a_connection_that_a_pool_has_used_is_used",
                "tests/core/test_lifetime_across.py::"
                "test_a_pool_is_closed_with_the_resolver_of_a_connection",
                "tests/core/test_mistakes.py::"
                "test_a_callback_with_other_parameters_is_told_how_it_is_called[procedure",
                "tests/core/test_mistakes.py::"
                "test_a_callback_with_other_parameters_is_told_how_it_is_called[reply",
                "tests/core/test_threads_refused.py::test_another_thread_does_not_reach_c[Rpc",
                "tests/regress/test_rpc_raw.py",
            ],
            "evrpc's pools crash without assertions (R1)",
        ),
        **dict.fromkeys(
            [
                "tests/util/test_log.py::test_a_failed_assertion_says_so_and_aborts",
                "tests/util/test_log.py::"
                "test_the_fatal_callback_may_report_and_then_the_process_ends",
            ],
            "they need an assertion",
        ),
    },
    "2.1.13": {
        **UNLINKED,
        "tests/regress/test_main.py::test_version": "the headers are those of 2.1.12",
    },
}


def tree_for(name: str) -> Path:
    """Return the tree to test with the build *name*: for a sanitizer a copy, with our C built."""
    if name not in RUNTIMES:
        return ROOT
    tree = ROOT / "build" / name
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    files = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for file in filter(None, files.split("\0")):
        if (ROOT / file).exists():
            (tree / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / file, tree / file)
    shutil.copytree(ROOT / "vendor" / "include", tree / "vendor" / "include", dirs_exist_ok=True)
    build = builds.BUILDS[name]
    compiled = {**os.environ, "CFLAGS": build.flags, "LDFLAGS": build.flags}
    if build.compiler != "gcc":  # otherwise the one that Python itself was made with
        compiled |= {"CC": build.compiler, "LDSHARED": f"{build.compiler} -shared"}
    command = [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"]
    subprocess.run(command, cwd=tree, env=compiled, check=True)
    return tree


#: What tests start beside Python. With a sanitizer in it, curl and apt hang, and compilers leak.
OTHERS = (
    *("apt-get", "cc", "curl", "dig", "dpkg-deb", "gcc", "git", "make", "nc", "openssl", "patch"),
    *("strace", "tar"),
)


def outside() -> Path:
    """Return a directory where each of `OTHERS` is started without what is preloaded."""
    place = ROOT / "build" / "outside"
    place.mkdir(parents=True, exist_ok=True)
    for other in OTHERS:
        if found := shutil.which(other):
            script = place / other
            script.write_text(
                f'#!/bin/sh\nexec env -u LD_PRELOAD -u LD_LIBRARY_PATH {found} "$@"\n'
            )
            script.chmod(0o755)
    return place


def runtime(name: str, library: str) -> str:
    """Return where the *library* is that has the sanitizer of the build *name*."""
    if name == "fuzz":
        found = importlib.util.find_spec("atheris")
        if found is None or found.origin is None:
            raise builds.SourceError("atheris is missing: make .venv/parsers installs it")
        return str(Path(found.origin).parent.parent / library)
    command = ["gcc", f"-print-file-name={library}"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def environment_for(name: str) -> dict[str, str]:
    """Return the environment in which Python uses the build *name*."""
    environment = {**os.environ, "LD_LIBRARY_PATH": str(builds.libraries(name))}
    if name in RUNTIMES:
        found = [runtime(name, library) for library in RUNTIMES[name]]
        path = f"{outside()}:{os.environ['PATH']}"
        environment |= {"LD_PRELOAD": " ".join(found), **OPTIONS, "PATH": path}
    return environment


def main() -> None:
    parser = argparse.ArgumentParser(description="Run the tests on another build of libevent.")
    parser.add_argument("name", choices=builds.BUILDS)
    parser.add_argument("--module", default="pytest", help="what to run, if not the tests")
    chosen, arguments = parser.parse_known_args()
    environment = environment_for(chosen.name)
    os.chdir(tree_for(chosen.name))
    if chosen.module == "pytest":
        # It is about the source, which is the same.
        arguments += ["--ignore=tests/house"]
        arguments += [f"--deselect={test}" for test in LEFT_OUT.get(chosen.name, ())]
    command = [sys.executable, "-X", "dev", "-W", "error", "-m", chosen.module, *arguments]
    os.execve(sys.executable, command, environment)


if __name__ == "__main__":
    main()
