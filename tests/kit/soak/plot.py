"""Draw what a run has measured, as an SVG, by matplotlib: ``make soak`` installs it."""

from __future__ import annotations

import platform
from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot

import libevent_py

#: At most so many samples are drawn.
POINTS = 400


def draw(report: dict[str, Any], path: Path) -> None:
    """Draw memory, descriptors, objects and the work done over time into *path*."""
    samples = report["samples"]
    drawn = samples[:: -(-len(samples) // POINTS)]
    rests = [sample for sample in samples if sample["resting"]]
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "libevent_py", "font.size": 9})
    figure, panels = pyplot.subplots(4, 1, figsize=(8, 8), sharex=True, layout="constrained")

    def line(panel: Any, label: str, what: Any) -> None:
        panel.plot([s["seconds"] / 60 for s in drawn], [what(s) for s in drawn], color="0.75")
        panel.plot([s["seconds"] / 60 for s in rests], [what(s) for s in rests], "o-", ms=2, lw=1)
        panel.set_ylabel(label)
        panel.set_ylim(bottom=0)
        panel.grid(alpha=0.3)

    line(panels[0], "memory, MiB", lambda sample: sample["memory"] / (1 << 20))
    line(panels[1], "descriptors", lambda sample: sample["descriptors"])
    line(panels[2], "objects", lambda sample: sample["objects"])
    rates = [
        ((b["seconds"]) / 60, (b["served"] - a["served"]) / (b["seconds"] - a["seconds"]))
        for a, b in pairwise(drawn)
        if b["seconds"] > a["seconds"]
    ]
    panels[3].plot(*zip(*rates, strict=True), color="0.5", lw=1)
    panels[3].set_ylabel("served, 1/s")
    panels[3].set_xlabel("minutes")
    panels[3].grid(alpha=0.3)
    figure.suptitle(
        f"{report['held']:,} connections held, {samples[-1]['served']:,} others served"
        f" ({date.today()}, libevent {libevent_py.libevent_version},"
        f" Python {platform.python_version()})\n"
        "grey: under load; dots: at rest, when all other clients have gone"
    )
    figure.savefig(path, metadata={"Date": None})
