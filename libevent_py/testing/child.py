"""The pytest of one test that runs in a process of its own; a file, so that it can be traced."""

import sys


def main() -> None:
    """Run the test that the arguments name."""
    sys.path[0] = ""  # as with python -m pytest, and not this folder
    import pytest

    for sink in sys.stdout, sys.stderr:
        sink.reconfigure(write_through=True)  # type: ignore[union-attr]  # a crash loses nothing
    sys.exit(pytest.main(sys.argv[1:]))


if __name__ == "__main__":
    main()
