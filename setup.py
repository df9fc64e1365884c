"""The things that pyproject.toml can't say; everything else is there."""

import gzip
import os
import sys
import sysconfig
import tarfile
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel as base_wheel
from setuptools.command.build_ext import build_ext as base
from setuptools.command.build_py import build_py as base_py
from setuptools.command.sdist import sdist as base_sdist

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT))  # a build front end leaves it out


# The C part keeps to the limited API, so one wheel serves every Python from 3.10 on. Free-threaded
# builds have no limited API before 3.15, and refuse to compile with it.
LIMITED = not sysconfig.get_config_var("Py_GIL_DISABLED")


class build_ext(base):
    """Compile what a wheel can take anywhere, and make the tracer's generated part if needed."""

    def build_extensions(self) -> None:
        # Python's own flags for linking may name the folder that this Python is in: of no use to
        # others, as the module doesn't link with libpython.
        linker = self.compiler.linker_so
        linker[:] = [flag for flag in linker if not flag.startswith(("-Wl,-rpath", "-Wl,-R"))]
        super().build_extensions()

    def build_extension(self, ext: Extension) -> None:
        if not self.inplace:  # a wheel: debugging information would be more than half of it
            ext.extra_compile_args = [*ext.extra_compile_args, "-g0"]
        if ext.name == "libevent_py._trace.preload":
            import build_trace

            ext.include_dirs += build_trace.include_dirs()
            ext.define_macros += build_trace.macros()
        super().build_extension(ext)


class build_py(base_py):
    """Put the samples into the package: ``libevent-py samples`` lists them, and copies them."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            place = Path(self.build_lib, "libevent_py", "_samples")
            for sample in samples():
                self.mkpath(str((place / sample).parent))
                self.copy_file(str(Path("samples", sample)), str(place / sample))

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        place = Path(self.build_lib, "libevent_py", "_samples")
        return [*super().get_outputs(include_bytecode), *(str(place / each) for each in samples())]


def mode(executable: int) -> int:
    """Return the mode of a file in an archive, whatever umask its maker has."""
    return 0o755 if executable & 0o100 else 0o644


class bdist_wheel(base_wheel):
    """Make the same wheel of the same files, whoever makes it.

    When they are said to have changed is said by SOURCE_DATE_EPOCH, which setuptools heeds.
    """

    def write_wheelfile(self, wheelfile_base: str, *given: str) -> None:
        super().write_wheelfile(wheelfile_base, *given)
        for path in Path(self.bdist_dir).rglob("*"):
            path.chmod(0o755 if path.is_dir() else mode(path.stat().st_mode))


class sdist(base_sdist):
    """Make the same archive of the same files, whoever makes it, where and when.

    When they are said to have changed is said by SOURCE_DATE_EPOCH; without, each keeps its time.
    """

    def make_archive(self, base_name: str, format: str, *given: str, **more: str) -> str:
        if format != "gztar":
            return super().make_archive(base_name, format, *given, **more)
        epoch = os.environ.get("SOURCE_DATE_EPOCH")

        def told(member: tarfile.TarInfo) -> tarfile.TarInfo:
            member.uid = member.gid = 0
            member.uname = member.gname = "root"
            member.mode = 0o755 if member.isdir() else mode(member.mode)
            member.mtime = int(epoch or member.mtime)
            return member

        made = Path(f"{base_name}.tar.gz")
        made.parent.mkdir(parents=True, exist_ok=True)
        with (
            made.open("wb") as raw,
            gzip.GzipFile("", "wb", fileobj=raw, mtime=int(epoch or 0)) as packed,
            tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
        ):
            archive.add(more["base_dir"], filter=told)
        return str(made)


def samples() -> list[Path]:
    """Return the samples and their twins in C, from their folder on."""
    found = [*Path("samples").glob("*.py"), *Path("samples", "c").glob("*.[ch]")]
    return sorted(path.relative_to("samples") for path in found if path.name != "__init__.py")


# Not a module of Python's, but compiled and installed like one.
preload = Extension(
    "libevent_py._trace.preload",
    ["libevent_py/_trace/preload.c"],
    depends=["build_trace.py", *map(str, Path("libevent_py", "_c").glob("*.h"))],
    extra_compile_args=["-O1"],  # it is as fast, and compiled in a third of the time
    py_limited_api=LIMITED,
)

setup(
    cffi_modules=["build_ffi.py:ffibuilder"],
    ext_modules=[preload] if sys.platform == "linux" else [],
    cmdclass={
        "bdist_wheel": bdist_wheel,
        "build_ext": build_ext,
        "build_py": build_py,
        "sdist": sdist,
    },
    options={"bdist_wheel": {"py_limited_api": "cp310"}} if LIMITED else {},
)
