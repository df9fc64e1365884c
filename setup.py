"""The things that pyproject.toml can't say; everything else is there."""

import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext as base

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT))  # a build front end leaves it out


class build_ext(base):
    """Make the part of the tracer that is made from the cdefs, when it is needed."""

    def build_extension(self, ext: Extension) -> None:
        if ext.name == "libevent_py._trace.preload":
            import build_trace

            ext.include_dirs += build_trace.include_dirs()
            ext.define_macros += build_trace.macros()
        super().build_extension(ext)


# Not a module of Python's, but compiled and installed like one.
preload = Extension(
    "libevent_py._trace.preload",
    ["libevent_py/_trace/preload.c"],
    depends=["build_trace.py", *map(str, Path("libevent_py", "_c").glob("*.h"))],
    extra_compile_args=["-O1"],  # it is as fast, and compiled in a third of the time
    py_limited_api=True,
)

setup(
    cffi_modules=["build_ffi.py:ffibuilder"],
    ext_modules=[preload] if sys.platform == "linux" else [],
    cmdclass={"build_ext": build_ext},
    # The C part keeps to the limited API: one wheel for every Python from 3.10 on.
    options={"bdist_wheel": {"py_limited_api": "cp310"}},
)
