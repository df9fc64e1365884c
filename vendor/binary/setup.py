"""Name the wheel after the machine that what is in it was built for."""

from setuptools import setup
from setuptools.command.bdist_wheel import bdist_wheel as base
from setuptools.dist import Distribution


class bdist_wheel(base):
    """Tag the wheel as the extension that was put into it is tagged."""

    def get_tag(self) -> tuple[str, str, str]:
        """Return the tag: of every Python from 3.10 on, for this platform."""
        return "cp310", "abi3", super().get_tag()[2]


class Binary(Distribution):
    """A distribution that is not for every machine, though setuptools compiles nothing."""

    def has_ext_modules(self) -> bool:
        """Tell that it has compiled modules."""
        return True


setup(cmdclass={"bdist_wheel": bdist_wheel}, distclass=Binary)
