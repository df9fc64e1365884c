"""Targets for fuzzing: each gives bytes to one of the parsers, and checks what must be true then.

``python -m tests.kit.parsers TARGET… --minutes N`` has atheris find the bytes, led by what they
reach; ``--replay FILE`` runs one input without it. A target begins an input with a few bytes that
choose how the rest is given: in which pieces, with which callbacks, and how it ends.
"""
