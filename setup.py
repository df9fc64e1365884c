"""The things that pyproject.toml can't say; everything else is there."""

import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext as base
from setuptools.command.build_py import build_py as base_py

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
    cmdclass={"build_ext": build_ext, "build_py": build_py},
    options={"bdist_wheel": {"py_limited_api": "cp310"}} if LIMITED else {},
)
