"""The loop that the first argument names: asyncio, or uvloop, whose loops do the same."""

import importlib
import sys

loop = importlib.import_module(sys.argv[1]).new_event_loop()
