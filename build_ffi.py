"""Build ``libevent_py._ffi`` from each noun's cdef, libevent's header of that name, and our C.

Its stub for type checkers is made from the same cdefs.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

from cffi import FFI, model

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT))  # a build front end leaves it out

from vendor import fetch  # noqa: E402

# A noun's declarations use those before it. rpc's header comes late because it defines INPUT and
# OUTPUT as macros.
NOUNS = (
    "types",
    "memory",
    "util",
    "keyvalq_struct",
    "python",
    "event_struct",
    "event",
    "event_compat",
    "log",
    "thread",
    "buffer",
    "buffer_compat",
    "reference",
    "shared",
    "segment",
    "bufferevent",
    "bufferevent_compat",
    "bufferevent_struct",
    "suspended",
    "filter",
    "eager",
    "aio",
    "aio_stream",
    "ratelimit",
    "bufferevent_ssl",
    "tls",
    "listener",
    "dns",
    "dns_compat",
    "lookup",
    "dns_struct",
    "dns_server",
    "http",
    "http_compat",
    "http_struct",
    "http_framing",
    "http_packed",
    "http_chunks",
    "http_flow",
    "http_server",
    "http_client",
    "tag",
    "rpc",
    "rpc_struct",
    "explain",
    "doctor",
)
C = ROOT / "libevent_py" / "_c"

# Never libevent itself: libevent_openssl needs libevent_core, and two cores in one process don't
# know each other's objects.
PARTS = ("event_core", "event_extra", "event_pthreads")
TLS = "event_openssl"
SONAME = "2.1.so.7"
OPENSSL = ["-lssl", "-lcrypto"]
NO_OPENSSL = (
    "there are no development files of the OpenSSL that libevent_openssl is linked with: "
    "`apt-get install libssl-dev` on Debian and Ubuntu, `dnf install openssl-devel` on Fedora, "
    "`apk add openssl-dev` on Alpine, `brew install openssl` on macOS"
)

NO_COMPILER = (
    "Install one: `apt-get install gcc libc6-dev` on Debian and Ubuntu, `dnf install gcc` on "
    "Fedora, `apk add gcc musl-dev` on Alpine, `xcode-select --install` on macOS; or name yours "
    "in CC."
)

# The types whose sizes event-config.h tells, by its names for them. Those of off_t and time_t
# depend on what a compiler is told, and libevent's own types don't change with them.
SIZES = {
    "INT": "int",
    "LONG": "long",
    "LONG_LONG": "long long",
    "PTHREAD_T": "pthread_t",
    "SHORT": "short",
    "SIZE_T": "size_t",
    "VOID_P": "void *",
}

# cffi defines these functions below our C, which calls them.
EXTERN_PYTHON = re.compile(r'^extern "Python" ([^{;]+;)', re.MULTILINE)

# The declaration of one of our own functions in a cdef, and its name.
OURS = re.compile(r"^(\w[^{};()]*?\b(evpy_\w+)\([^{;]*)(?=;)", re.MULTILINE)
COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
USE = "void use_{0}(void); void use_{0}(void) {{ (void){0}; }}"

# One of our own functions that cffi calls in place of libevent's.
IN_ITS_STEAD = re.compile(r"^#define \w+ (evpy_\w+)$", re.MULTILINE)


def search_path() -> list[str]:
    """Return the directories of the libraries, from pkg-config. It isn't asked for their names, as
    those for libevent_openssl include the monolithic libevent."""
    if not shutil.which("pkg-config"):
        return []
    asked = ["pkg-config", "--libs-only-L", "libevent_core"]
    return shlex.split(subprocess.run(asked, capture_output=True, text=True).stdout)


def link(flags: list[str], source: str = "") -> subprocess.CompletedProcess[str]:
    """Try to make a program or, with -shared, a library of *source*."""
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
    compiler += shlex.split(os.environ.get("CPPFLAGS", ""))
    flags = [*shlex.split(os.environ.get("LDFLAGS", "")), *flags]
    with tempfile.TemporaryDirectory() as directory:
        probe = [*compiler, "-fPIC", "-o", f"{directory}/probe", "-x", "c", "-", *flags]
        env = {**os.environ, "LC_ALL": "C"}
        try:
            return subprocess.run(probe, input=source, capture_output=True, text=True, env=env)
        except OSError as error:
            raise fetch.HeadersError(f"There is no C compiler: {error}. {NO_COMPILER}") from None


def links(flags: list[str], source: str = "") -> bool:
    return link(["-shared", *flags], source).returncode == 0


def link_flag(part: str, search: list[str]) -> str | None:
    """Return the flag that links a part: its name or, with only the runtime package, its soname."""
    flags = (f"-l{part}", f"-l:lib{part}-{SONAME}")
    return next((flag for flag in flags if links([*search, flag])), None)


def has_openssl(flags: list[str]) -> bool:
    """Tell whether the OpenSSL of libevent_openssl, which *flags* link, is installed (I4).

    GNU's linker warns of another one only when it makes a program that uses both."""
    source = """
        #include <openssl/ssl.h>
        void bufferevent_openssl_socket_new(void);
        int main(void) { bufferevent_openssl_socket_new(); return SSL_new(0) == 0; }
    """
    flags = [*flags, *OPENSSL]
    return links(flags, source) and "may conflict" not in link(flags, source).stderr


def left_out(search: list[str], flags: dict[str, str | None]) -> set[str]:
    """Return the nouns that can't be built here, and print why."""
    missing = [f"lib{part}" for part in PARTS if flags[part] is None]
    if missing:
        raise fetch.HeadersError(f"There is no {', '.join(missing)} to link with. {fetch.INSTALL}")
    if (tls := flags[TLS]) is None:
        print(f"libevent_py: no TLS, because there is no lib{TLS} to link with", file=sys.stderr)
        return {"bufferevent_ssl", "tls"}
    if not has_openssl([*search, tls]):
        print(f"libevent_py: no TLS, because {NO_OPENSSL}", file=sys.stderr)
        return {"tls"}
    return set()


def macros(without: set[str]) -> list[tuple[str, str]]:
    """Return the macros for our C in a build that leaves out the nouns *without*."""
    return [
        ("_GNU_SOURCE", "1"),
        ("Py_LIMITED_API", "0x030a0000"),  # the oldest Python there is a wheel for
        ("LIBEVENT_PY_HAVE_OPENSSL", str(int("bufferevent_ssl" not in without))),
        ("LIBEVENT_PY_HAVE_TLS", str(int("tls" not in without))),
    ]


def assemble(include: Path, without: set[str], callbacks: str) -> Iterator[tuple[str, list[str]]]:
    """Yield each noun's cdef and C; *callbacks* precedes the functions that Python defines."""
    for noun in NOUNS:
        if noun in without:
            continue
        cdef = (C / f"{noun}.h").read_text()
        source = []
        if (include / "event2" / f"{noun}.h").exists():
            source.append(f"#include <event2/{noun}.h>")
        if (C / f"{noun}.c").exists():
            source += [f"{callbacks} {declaration}" for declaration in EXTERN_PYTHON.findall(cdef)]
            source += [f'#line 1 "libevent_py/_c/{noun}.c"', (C / f"{noun}.c").read_text()]
        yield cdef, source


def fits(include: Path) -> bool:
    """Tell whether event-config.h is for what the compiler makes: one taken before may not be."""
    checks = [
        f'_Static_assert(EVENT__SIZEOF_{name} == sizeof({type}), "{type}");'
        for name, type in SIZES.items()
    ]
    source = ["#include <pthread.h>", "#include <stddef.h>", "#include <event2/event-config.h>"]
    return links(["-isystem", str(include)], "\n".join([*source, *checks]))


def headers() -> Path:
    """Return where libevent's headers are, with an event-config.h for what the compiler makes."""
    if not links([]):
        raise fetch.HeadersError(
            f"The C compiler can't make a shared library: {link(['-shared']).stderr} {NO_COMPILER}"
        )
    include = fetch.headers()
    if not fits(include):
        include = fetch.headers(anew=True)
        if not fits(include):
            raise fetch.HeadersError(
                f"{include}/event2/event-config.h is for another kind of machine than the "
                f"compiler: the sizes of its types differ. {fetch.INSTALL}"
            )
    return include


def make() -> FFI:
    include = headers()
    search = search_path()
    flags = {part: link_flag(part, search) for part in (*PARTS, TLS)}
    without = left_out(search, flags)

    (ROOT / "libevent_py" / "_ffi.pyi").write_text(stub(include))
    ffi = FFI()
    source = []
    for cdef, lines in assemble(include, without, "static"):
        ffi.cdef(cdef)
        source += lines
    source.append('#line 1 "libevent_py._ffi.c"')
    source.append("#define free(memory) evpy_free(memory)")  # for lib.free()
    ffi.set_source(
        "libevent_py._ffi",
        "\n".join(source),
        define_macros=macros(without),
        include_dirs=[str(include)],
        depends=[str(header) for header in include.rglob("*.h")],
        extra_link_args=[
            *search,
            *filter(None, flags.values()),
            *(OPENSSL if "tls" not in without else ()),
        ],
    )
    return ffi


def annotation(type: model.BaseType, given: bool = False) -> str:
    """Return the annotation for a C type: of a result or, if *given*, of an argument."""
    if isinstance(type, model.VoidType):
        return "None"
    if isinstance(type, model.EnumType) or (
        isinstance(type, (model.PrimitiveType, model.UnknownIntegerType))
        and type.name not in ("char", "_Bool", "float", "double")
    ):
        return "int"
    if isinstance(type, model.PrimitiveType):
        return {"char": "bytes", "_Bool": "bool"}.get(type.name, "float")
    return "Given" if given else "CData"


def stub(include: Path) -> str:
    """Return the module's stub for type checkers, with all of `lib`, even what this build lacks."""
    ffi = FFI()
    for cdef, _ in assemble(include, set(), ""):
        ffi.cdef(cdef)
    lines = [(C / "_ffi.pyi").read_text().rstrip(), "", "class _Lib:"]
    for key, (type, _) in ffi._parser._declarations.items():
        kind, _, name = key.partition(" ")
        if kind == "function":
            given = [f"_{place}: {annotation(each, True)}" for place, each in enumerate(type.args)]
            given += ["*_: Given"] if type.ellipsis else ["/"] if given else []
            arguments = ", ".join(["self", *given])
            lines.append(f"    def {name}({arguments}) -> {annotation(type.result)}: ...")
        elif kind == "macro":
            lines.append(f"    {name}: int")
        elif kind in ("constant", "variable", "extern_python"):
            lines.append(f"    {name}: CData")
        elif kind == "enum":
            lines += [f"    {member}: int" for member in type.enumerators]
    return "\n".join([*lines, "", "lib: _Lib", ""])


def lint_source(include: Path, without: set[str]) -> str:
    """Return our C without cffi's, using everything that the cdefs declare, with their types.

    So a function that is used neither in C nor in a cdef is found to be dead. And a wrong type in a
    cdef, with which the module itself compiles without a warning, is an error.
    """
    source, uses = [], []
    for cdef, lines in assemble(include, without, "extern"):
        source += lines
        ours = EXTERN_PYTHON.sub("", COMMENT.sub("", cdef))
        for declaration, name in OURS.findall(ours):
            uses += [f"static {declaration};", USE.format(name)]
    uses += map(USE.format, IN_ITS_STEAD.findall("\n".join(source)))
    return "\n".join([*source, '#line 1 "what the cdefs declare"', *uses])


def lint() -> int:
    """Compile our C, with TLS and without, by each compiler found; warnings are errors.

    It is optimized, because some warnings need that.
    """
    include = headers()
    search = search_path()
    without = left_out(search, {part: link_flag(part, search) for part in (*PARTS, TLS)})
    failed = 0
    for compiler in filter(shutil.which, ("gcc", "clang")):
        for leaving_out in (without, {*without, "tls"}, {*without, "tls", "bufferevent_ssl"}):
            command = [compiler, "-O2", "-Wall", "-Wextra", "-Werror", "-c", "-o", os.devnull]
            command += [f"-D{name}={value}" for name, value in macros(leaving_out)]
            command += ["-isystem", str(include), "-isystem", sysconfig.get_path("include")]
            command += ["-x", "c", "-"]
            source = lint_source(include, leaving_out)
            failed |= subprocess.run(command, input=source, text=True, cwd=ROOT).returncode
    return failed


try:
    if __name__ == "__main__" and sys.argv[1:] == ["--lint"]:
        sys.exit(lint())
    ffibuilder = make()
except fetch.HeadersError as error:
    sys.exit(f"libevent_py: {error}")
