"""The two things that pyproject.toml can't say; everything else is there."""

from setuptools import setup

setup(
    cffi_modules=["build_ffi.py:ffibuilder"],
    # The C part keeps to the limited API: one wheel for every Python from 3.10 on.
    options={"bdist_wheel": {"py_limited_api": "cp310"}},
)
