"""Servers under load for as long as one likes: ``python -m tests.kit.soak --minutes N``.

One process has all the servers on one base (`servers`), another has all the clients (`clients`):
those that behave, who check every byte that they get, and those that don't. They go on in rounds.
After each round everybody rests, but for the connections that are held all the time, and the
servers say what they have: memory, descriptors, objects. After the first rounds that must stay the
same, whatever the clients have done meanwhile.
"""
