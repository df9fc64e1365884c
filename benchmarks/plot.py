"""Pictures: what an operation costs, as bars, and on few connections and on many, as curves."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

#: How many pictures stand beside each other.
COLUMNS = 2

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


def bars(results: Iterable[dict[str, Any]]) -> dict[str, list[tuple[str, float, float]]]:
    """Return the bars of each job that is no point of a curve: contender, median and spread."""
    return {
        result["job"]: [
            (row["contender"], row["median"], row["spread"]) for row in result["contenders"]
        ]
        for result in results
        if curve_of(result["job"]) is None
    }


def plot(report: dict[str, Any], path: Path) -> None:
    """Draw a report's curves and bars into the SVG *path*, with what they were measured on."""
    import matplotlib

    matplotlib.use("svg")
    # The same figures make the same file, and text stays text.
    matplotlib.rcParams.update({"svg.hashsalt": "benchmarks", "svg.fonttype": "none"})
    from matplotlib import pyplot

    results = report["jobs"]
    titles = {result["job"]: result for result in results}
    lines, blocks = curves(results), bars(results)
    rows = -(-(len(lines) + len(blocks)) // COLUMNS)
    figure, pictures = pyplot.subplots(
        rows, COLUMNS, figsize=(6 * COLUMNS, 3.6 * rows + 0.5), squeeze=False
    )
    places = iter(pictures.flat)
    for name, contenders in lines.items():
        picture = next(places)
        for contender, points in contenders.items():
            picture.plot(*zip(*sorted(points), strict=True), marker="o", label=contender)
        picture.set(title=name, xscale="log", xlabel="connections")
        picture.set(ylabel="µs of processor time an operation")
        picture.set_ylim(0, picture.get_ylim()[1] * 1.5)  # with room for the legend
        picture.grid(alpha=0.3)
        picture.legend(loc="upper left", ncols=2)
    for name, row in blocks.items():
        picture = next(places)
        names, medians, spreads = zip(*reversed(row), strict=True)
        colours = ["tab:blue" if "libevent_py" in one else "tab:gray" for one in names]
        picture.barh(names, medians, color=colours, xerr=[half / 2 for half in spreads])
        picture.set(title=name)
        picture.set(xlabel=f"{titles[name]['unit']} per {titles[name]['operation']}")
        picture.grid(alpha=0.3, axis="x")
    for unused in places:
        unused.set_axis_off()
    figure.tight_layout(rect=(0, 0.5 / (3.6 * rows + 0.5), 1, 1))
    figure.text(0.01, 0.01, caption(report), va="bottom", size="small")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})


def caption(report: dict[str, Any]) -> str:
    """Return what is drawn, and when and on what it was measured."""
    machine = report["machine"]
    on = [machine["platform"], machine["processor"], f"{machine['cores']} cores"]
    on += [machine["python"], f"libevent {machine['libevent']}"]
    return f"Medians, and the distance between the quartiles. {', '.join([report['date'], *on])}"
