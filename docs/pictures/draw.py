"""Draws the pictures of the guides: ``python docs/pictures/draw.py`` writes the SVG files anew.

They are committed, so that the guides have them wherever Markdown is read. A test compares them
with what this draws.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from xml.sax.saxutils import escape

HERE = Path(__file__).parent

STYLE = """\
.libevent-picture { --ink: #1f2328; --dim: #59636e; --line: #59636e; --box: #eef4fb;
  --strong: #cfe3fa; --edge: #6e93bd; --end: #f6e3e0; --end-edge: #b9837a; }
@media (prefers-color-scheme: dark) { .libevent-picture { --ink: #e6edf3; --dim: #a4adb8;
  --line: #8b949e; --box: #1c2735; --strong: #234063; --edge: #5b82b0; --end: #3a2724;
  --end-edge: #a06b62; } }
.libevent-picture text { font: 14px system-ui, sans-serif; fill: var(--ink); }
.libevent-picture .code { font: 13px ui-monospace, monospace; }
.libevent-picture .small { font-size: 12px; fill: var(--dim); }
.libevent-picture .head { font-weight: 600; }
.libevent-picture .box { fill: var(--box); stroke: var(--edge); stroke-width: 1.5; }
.libevent-picture .strong { fill: var(--strong); }
.libevent-picture .end { fill: var(--end); stroke: var(--end-edge); }
.libevent-picture .line { fill: none; stroke: var(--line); stroke-width: 1.5; }
.libevent-picture .dashed { stroke-dasharray: 5 4; }
.libevent-picture .tip { fill: var(--line); stroke: none; }
"""


class Picture:
    """What is drawn so far, on a sheet of *width* times *height*."""

    def __init__(self, title: str, width: int, height: int) -> None:
        self.title, self.width, self.height = title, width, height
        self.parts: list[str] = []
        self.name = title.split(":")[0].lower().replace(" ", "-").replace("'", "")

    def box(self, x: int, y: int, w: int, h: int, *lines: str, kind: str = "") -> None:
        """Draw a box around lines of text; one that begins with a backquote is code."""
        cls = f"box {kind}".strip()
        self.parts.append(f'<rect class="{cls}" x="{x}" y="{y}" width="{w}" height="{h}" rx="8"/>')
        top = y + h / 2 - 9 * (len(lines) - 1) + 5
        for number, line in enumerate(lines):
            self.text(x + w / 2, top + 18 * number, line, "middle", small=number > 0)

    def text(
        self, x: float, y: float, line: str, anchor: str = "start", *, small: bool = False
    ) -> None:
        """Write a line; code after a backquote, a heading after a hash."""
        kinds = {"`": "code", "#": "head"}
        cls = " ".join(filter(None, [kinds.get(line[0], ""), "small" if small else ""]))
        shown = escape(line.strip("`#"))
        attribute = f' class="{cls}"' if cls else ""
        self.parts.append(
            f'<text{attribute} x="{x:g}" y="{y:g}" text-anchor="{anchor}">{shown}</text>'
        )

    def arrow(self, path: str, *, dashed: bool = False) -> None:
        """Draw a path that ends in a tip."""
        cls = "line dashed" if dashed else "line"
        self.parts.append(f'<path class="{cls}" d="{path}" marker-end="url(#tip-{self.name})"/>')

    def line(self, path: str, *, dashed: bool = False) -> None:
        """Draw a path."""
        self.parts.append(f'<path class="{"line dashed" if dashed else "line"}" d="{path}"/>')

    def fill(self, x: int, y: int, w: int, h: int) -> None:
        """Fill an area, without an edge."""
        self.parts.append(
            f'<rect class="strong" x="{x}" y="{y}" width="{w}" height="{h}"'
            ' style="fill: var(--strong)"/>'
        )

    def svg(self) -> str:
        """Return the file's text."""
        marker = (
            f'<marker id="tip-{self.name}" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7"'
            ' markerHeight="7" orient="auto-start-reverse">'
            '<path class="tip" d="M0 0L10 5L0 10z"/></marker>'
        )
        body = "\n".join(self.parts)
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" class="libevent-picture" role="img"'
            f' viewBox="0 0 {self.width} {self.height}" width="{self.width}">\n'
            f"<title>{escape(self.title)}</title>\n<style>\n{STYLE}</style>\n"
            f"<defs>{marker}</defs>\n{body}\n</svg>\n"
        )


def states() -> Picture:
    """Return the states of an event."""
    p = Picture("States of an event: not pending, pending, active and closed", 760, 400)
    p.box(30, 150, 150, 60, "not pending", "made, and kept by you")
    p.box(305, 150, 150, 60, "pending", "kept by the base")
    p.box(580, 150, 150, 60, "active", "its turn comes")
    p.box(305, 310, 150, 60, "closed", "raises ClosedError", kind="end")
    p.arrow("M90 70 L90 146")
    p.text(30, 60, "`Event(base, fd, what, callback)`")
    p.arrow("M180 170 L301 170")
    p.text(240, 161, "`add()`", "middle")
    p.arrow("M305 192 L184 192")
    p.text(243, 208, "`delete()`", "middle")
    p.arrow("M455 170 L576 170")
    p.text(515, 161, "or the time is up", "middle", small=True)
    p.text(515, 147, "it happens,", "middle", small=True)
    p.arrow("M580 192 L459 192")
    p.text(518, 208, "callback runs,", "middle", small=True)
    p.text(518, 223, "PERSIST", "middle", small=True)
    p.arrow("M655 150 C655 60 240 60 160 146")
    p.text(430, 72, "callback runs, without PERSIST; or delete()", "middle", small=True)
    p.arrow("M140 150 C170 100 560 90 620 146", dashed=True)
    p.text(390, 124, "`active()`", "middle")
    p.arrow("M105 210 C105 300 200 340 301 340")
    p.arrow("M380 210 L380 306")
    p.arrow("M655 210 C655 300 560 340 459 340")
    p.text(388, 262, "`close()`")
    p.text(122, 262, "`close()`")
    p.text(186, 262, "or dropped", small=True)
    p.text(662, 262, "`close()`")
    return p


def watermarks() -> Picture:
    """Return the watermarks of a bufferevent."""
    p = Picture("Watermarks of a bufferevent: low and high, of input and of output", 760, 330)
    for x, head in ((40, "#input"), (420, "#output")):
        p.text(x, 28, head)
        p.box(x, 50, 90, 250)
        p.fill(x + 1, 190, 88, 102)
        p.line(f"M{x - 12} 100 L{x + 104} 100", dashed=True)
        p.line(f"M{x - 12} 220 L{x + 104} 220", dashed=True)
        p.text(x + 110, 105, "high")
        p.text(x + 110, 225, "low")
    p.text(190, 80, "high reached: no more is read,", small=True)
    p.text(190, 96, "so the peer has to wait", small=True)
    p.text(190, 150, "at low or above: each time", small=True)
    p.text(190, 166, "more comes, it calls", small=True)
    p.text(190, 186, "`on_read`")
    p.text(190, 250, "below low:", small=True)
    p.text(190, 266, "nothing is called", small=True)
    p.text(570, 80, "high: for filters only; a socket's", small=True)
    p.text(570, 96, "output takes all you write", small=True)
    p.text(570, 150, "above low: being sent,", small=True)
    p.text(570, 166, "nothing is called", small=True)
    p.text(570, 250, "sunk to low or below, it calls", small=True)
    p.text(570, 270, "`on_write`")
    p.text(
        40,
        322,
        "0, as it is at first, means no mark: on_read for every byte, on_write when all is sent.",
        small=True,
    )
    return p


def owners() -> Picture:
    """Return who owns whom."""
    p = Picture("Who owns whom: the base, what is made on it, and what stands alone", 760, 430)
    p.box(300, 20, 160, 50, "#EventBase", kind="strong")
    row = [
        (20, "Event"),
        (170, "Listener"),
        (320, "BufferEvent"),
        (470, "DnsBase"),
        (620, "HttpServer"),
    ]
    for x, name in row:
        p.box(x, 130, 120, 44, f"`{name}`")
        p.arrow(f"M{x + 60} 126 C{x + 60} 96 380 106 380 74")
    below = {
        20: ("its descriptor:", "yours"),
        170: ("its socket:", "closed with it"),
        320: ("input, output", "lent by it"),
        470: ("`DnsLookup`", "ends with it"),
        620: ("connection", "closed with it"),
    }
    for x, (one, other) in below.items():
        p.line(f"M{x + 60} 174 L{x + 60} 214", dashed=x == 20)
        p.box(x, 214, 120, 52, one, other)
    p.line("M680 266 L680 300")
    p.box(620, 300, 120, 52, "request", "until answered")
    p.box(20, 330, 120, 52, "`Buffer`", "yours", kind="end")
    p.box(170, 330, 120, 52, "`HttpRequest`", "yours until sent", kind="end")
    p.box(320, 330, 120, 52, "`TlsContext`", "shared", kind="end")
    p.text(
        20, 318, "On no base: any thread may use it, and the last reference frees it.", small=True
    )
    p.text(
        20,
        412,
        "Arrows lead to what closes a thing at the latest. "
        "What libevent may call lives until it is closed;",
        small=True,
    )
    p.text(20, 427, "everything else until you drop it.", small=True)
    return p


def flow() -> Picture:
    """Return how bytes flow, with and without EAGER."""
    p = Picture("How bytes flow: through the loop's turns, without EAGER and with it", 760, 350)

    def lane(y: int, head: str, boxes: list[tuple[str, ...]], notes: list[str]) -> None:
        p.text(20, y, head)
        for number, lines in enumerate(boxes):
            x = 20 + number * 150
            p.box(x, y + 20, 120, 56, *lines, kind="strong" if "on_read" in lines[0] else "")
            if number:
                p.arrow(f"M{x - 30} {y + 48} L{x - 4} {y + 48}")
        for number, note in enumerate(notes):
            p.text(20, y + 102 + 16 * number, note, small=True)

    lane(
        30,
        "#Without EAGER, as in C",
        [
            ("socket", "readable"),
            ("input", "4096 bytes"),
            ("`on_read`", "reads, writes"),
            ("output", "a copy"),
            ("socket", "next turn"),
        ],
        [
            "One turn reads; the next one sends, when an event says that the socket is writable,",
            "which is added and deleted for each message. 5 system calls for an echo of 1 KiB,",
            "21 for one of 16 KiB.",
        ],
    )
    p.line("M20 190 L740 190", dashed=True)
    lane(
        220,
        "#With EAGER",
        [
            ("socket", "readable"),
            ("arena", "all there is"),
            ("`on_read`", "reads, writes"),
            ("arena", "all you wrote"),
            ("socket", "same turn"),
        ],
        [
            "One recv takes what the kernel has, up to max_single_read. When the callback returns,",
            "one send gives it what was written. What it doesn't take waits in the output.",
        ],
    )
    return p


PICTURES: dict[str, Callable[[], Picture]] = {
    "event-states.svg": states,
    "watermarks.svg": watermarks,
    "owners.svg": owners,
    "eager.svg": flow,
}


def main() -> None:
    """Write all of them."""
    for name, draw in PICTURES.items():
        (HERE / name).write_text(draw().svg())


if __name__ == "__main__":
    main()
