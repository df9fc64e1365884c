"""Curves: what an operation costs on few connections and on many."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

NAME = re.compile(r"(?P<curve>scale-\w+)-(?P<connections>\d+)")


def curve_of(job: str) -> tuple[str, int] | None:
    """Return the curve that a job has a point of, and its number of connections; else None."""
    found = NAME.fullmatch(job)
    return (found["curve"], int(found["connections"])) if found else None


def curves(results: Iterable[dict[str, Any]]) -> dict[str, dict[str, list[tuple[int, float]]]]:
    """Return the points of each curve's contenders: connections, and microseconds an operation."""
    found: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for result in results:
        if (place := curve_of(result["job"])) is None:
            continue
        for row in result["contenders"]:
            points = found.setdefault(place[0], {}).setdefault(row["contender"], [])
            points.append((place[1], row["median"] / 1000))
    return found


def plot(results: list[dict[str, Any]], path: Path) -> None:
    """Draw the curves into the SVG *path*, one picture beside the other."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    drawn = curves(results)
    figure, pictures = pyplot.subplots(1, len(drawn), figsize=(6 * len(drawn), 5), squeeze=False)
    for picture, (name, contenders) in zip(pictures[0], drawn.items(), strict=True):
        for contender, points in contenders.items():
            picture.plot(*zip(*sorted(points), strict=True), marker="o", label=contender)
        picture.set(title=name, xscale="log", xlabel="connections")
        picture.set(ylabel="µs of processor time an operation")
        picture.set_ylim(bottom=0)
        picture.grid(alpha=0.3)
        picture.legend()
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
