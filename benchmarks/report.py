"""From samples to figures: medians, spreads, ratios of the same round, and the table of a job."""

from collections.abc import Callable
from operator import sub, truediv
from statistics import median, quantiles
from typing import Any

from benchmarks.jobs import TIME, Job
from benchmarks.process import Sample

COLUMNS = {
    "median": "median",
    "spread": "spread",
    "per_second": "per second",
    "to_c": "x C",
    "beyond_c": "- C",
}


def figures(job: Job, samples: dict[str, list[Sample]]) -> dict[str, Any]:
    """Return the job's results as JSON has them; what has nothing to be compared with is null."""
    costs = {name: [s.amount / s.operations for s in taken] for name, taken in samples.items()}

    def paired(name: str, other: str, compare: Callable[[float, float], float]) -> float | None:
        if other not in costs or (compare is truediv and 0 in costs[other]):
            return None
        return median(map(compare, costs[name], costs[other]))

    rows = [
        {
            "contender": contender.name,
            "median": median(costs[contender.name]),
            "spread": spread(costs[contender.name]),
            "per_second": per_second(costs[contender.name]) if job.unit == TIME else None,
            "to_c": paired(contender.name, contender.twin, truediv),
            "beyond_c": paired(contender.name, contender.twin, sub),
            **{f"to_{rival}": paired(contender.name, rival, truediv) for rival in job.rivals},
            "samples": [sample._asdict() for sample in samples[contender.name]],
        }
        for contender in job.contenders
        if contender.name in samples
    ]
    cells = {row["contender"]: row for row in rows}
    return {
        "job": job.name,
        "title": job.title,
        "operation": job.operation,
        "unit": job.unit,
        "rivals": list(job.rivals),
        "contenders": rows,
        "bars": [
            {
                "contender": bar.contender,
                "column": bar.column,
                "limit": bar.limit,
                "value": cells.get(bar.contender, {}).get(bar.column),
            }
            for bar in job.bars
        ],
    }


def per_second(costs: list[float]) -> float | None:
    """What could be done in a second; None if the clock has not moved, as in a quick run."""
    cost = median(costs)
    return 1e9 / cost if cost else None


def spread(costs: list[float]) -> float:
    """The distance between the quartiles."""
    if len(costs) < 2:
        return 0.0
    lower, _, upper = quantiles(costs, n=4, method="inclusive")
    return upper - lower


def table(result: dict[str, Any]) -> str:
    columns = columns_of(result["rivals"])
    lines = [
        f"{result['job']}: {result['title']}; {result['unit']} per {result['operation']}",
        f"  {'':24}" + "".join(f"{heading:>12}" for heading in columns.values()),
    ]
    for row in result["contenders"]:
        cells = (cell(column, row[column]) for column in columns)
        lines.append(f"  {row['contender']:24}" + "".join(f"{text:>12}" for text in cells))
    for bar in result["bars"]:
        lines.append("  " + verdict(bar, columns))
    return "\n".join(lines) + "\n"


def columns_of(rivals: list[str]) -> dict[str, str]:
    return COLUMNS | {f"to_{rival}": f"x {rival}" for rival in rivals}


def cell(column: str, value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.2f}" if column.startswith("to_") else f"{value:,.0f}"


def verdict(bar: dict[str, Any], columns: dict[str, str]) -> str:
    column, limit, value = bar["column"], bar["limit"], bar["value"]
    what = f"bar: {bar['contender']}, {columns[column]}: at most {cell(column, limit)}"
    if value is None:
        return f"{what}; not measured"
    return f"{what}; {cell(column, value)}, {'met' if value <= limit else 'NOT MET'}"
