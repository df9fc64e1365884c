"""Print libevent's version, its backends, the one that it prefers, and the features of that one.

Made of event_get_version, event_get_supported_methods, event_base_get_method and
event_base_get_features.

    python samples/methods.py
"""

from __future__ import annotations

import sys

import libevent_py
from libevent_py import EventBase, EventFeature

FEATURES = {
    EventFeature.ET: "edge-triggered events",
    EventFeature.O1: "adding, deleting and firing take the same time however many events there are",
    EventFeature.FDS: "any kind of descriptor, files too",
    EventFeature.EARLY_CLOSE: "the other end's closing is noticed before all data is read",
}


def main() -> None:
    print("libevent", libevent_py.libevent_version)
    print("backends:", ", ".join(EventBase.supported_methods()))
    with EventBase() as base:
        print("in use:", base.method)
        for feature in EventFeature:
            print(f"  {'yes' if feature in base.features else 'no':3} {FEATURES[feature]}")


if __name__ == "__main__":
    print(__doc__) if "--help" in sys.argv else main()
