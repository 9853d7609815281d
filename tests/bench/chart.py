"""Small multiples of line charts as SVG: x is logarithmic, y starts at 0 or is logarithmic."""
from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from html import escape

Line = list[tuple[float, float]]

COLUMNS = 3
WIDTH, HEIGHT = 340, 250            # of a panel
LEFT, RIGHT, TOP, BOTTOM = 52, 14, 52, 40       # around its plot
HEADER = 34
COLOURS = ["#1f6feb", "#d1495b", "#2a9d5c", "#b8860b", "#7b4fb5", "#00838f"]
STYLE = """
text { font: 11px system-ui, sans-serif; fill: #333 }
.title { font-weight: 600; font-size: 13px } .head { font-size: 13px }
.grid { stroke: #e3e3e3 } .axis { stroke: #888 } .guide { stroke: #bbb; stroke-dasharray: 3 4 }
.line { fill: none; stroke-width: 1.8 }
"""


class Scale(Enum):
    """Of y."""
    LINEAR = 1      # from 0
    LOG = 2
    GUIDE = 3       # logarithmic, with a line that grows as x does


@dataclass(frozen=True)
class Panel:
    title: str
    x: str
    y: str
    lines: dict[str, Line]
    scale: Scale = Scale.LINEAR


def short(value: float) -> str:
    """12,000,000 as 12M: what an axis has room for."""
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"


def decades(low: float, high: float) -> list[float]:
    """The powers of ten around these."""
    return [10.0 ** e for e in range(math.floor(math.log10(low) + 1e-9),
                                     math.ceil(math.log10(high) - 1e-9) + 1)]


def steps(high: float, count: int = 4) -> list[float]:
    """0 and about `count` round numbers up to one at or over `high`."""
    rough = (high or 1) / count
    size = 10 ** math.floor(math.log10(rough))
    step = next(size * m for m in (1, 2, 2.5, 5, 10) if size * m >= rough * 0.999)
    return [step * i for i in range(math.ceil(high / step - 1e-9) + 1)]


class Axis:
    """Values to pixels. On a logarithmic one, 0 stands at the place of the lowest tick."""

    def __init__(self, ticks: list[float], start: float, end: float, log: bool) -> None:
        self.ticks, self.start, self.end, self.log = ticks, start, end, log
        self.low, self.high = self.scale(ticks[0]), self.scale(ticks[-1])

    def scale(self, value: float) -> float:
        return math.log10(max(value, self.ticks[0])) if self.log else value

    def at(self, value: float) -> float:
        share = (self.scale(value) - self.low) / (self.high - self.low or 1)
        return round(self.start + share * (self.end - self.start), 1)


def axes(panel: Panel) -> tuple[Axis, Axis]:
    xs = [x for line in panel.lines.values() for x, _ in line]
    ys = [y for line in panel.lines.values() for _, y in line]
    x_ticks = decades(min([x for x in xs if x > 0], default=1), max(xs))
    if min(xs) == 0:
        x_ticks.insert(0, x_ticks[0] / 10)
    positive = [y for y in ys if y > 0]
    log = panel.scale != Scale.LINEAR and bool(positive)
    y_ticks = decades(min(positive), max(positive)) if log else steps(max(ys))
    return Axis(x_ticks, LEFT, WIDTH - RIGHT, True), Axis(y_ticks, HEIGHT - BOTTOM, TOP, log)


def guide(x_axis: Axis, y_axis: Axis) -> str:
    """A line that ends in the upper right corner and falls as x does, as far as the plot goes."""
    x, y = x_axis.ticks[-1], y_axis.ticks[-1]
    share = max(x_axis.ticks[0] / x, y_axis.ticks[0] / y)
    return (f'<line class="guide" x1="{x_axis.at(x * share)}" y1="{y_axis.at(y * share)}" '
            f'x2="{x_axis.at(x)}" y2="{y_axis.at(y)}"/>')


def draw_panel(panel: Panel, left: int, top: int) -> list[str]:
    x_axis, y_axis = axes(panel)
    zero = min(x for line in panel.lines.values() for x, _ in line) == 0
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    out = [f'<g transform="translate({left},{top})">',
           f'<text class="title" x="{LEFT}" y="16">{escape(panel.title)}</text>',
           f'<text x="{LEFT}" y="{TOP - 8}">{escape(panel.y)}</text>',
           f'<text x="{right}" y="{HEIGHT - 6}" text-anchor="end">{escape(panel.x)}</text>']
    for value in y_axis.ticks:
        y = y_axis.at(value)
        out.append(f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{y}" y2="{y}"/>'
                   f'<text x="{LEFT - 6}" y="{y + 4}" text-anchor="end">{short(value)}</text>')
    for index, value in enumerate(x_axis.ticks):
        x = x_axis.at(value)
        label = "0" if zero and index == 0 else short(value)
        out.append(f'<line class="axis" x1="{x}" x2="{x}" y1="{bottom}" y2="{bottom + 4}"/>'
                   f'<text x="{x}" y="{bottom + 16}" text-anchor="middle">{label}</text>')
    out.append(f'<line class="axis" x1="{LEFT}" x2="{right}" y1="{bottom}" y2="{bottom}"/>')
    if panel.scale == Scale.GUIDE:
        out.append(guide(x_axis, y_axis))
    legend = float(LEFT)
    for colour, (label, line) in zip(COLOURS * 9, panel.lines.items()):
        dots = [(x_axis.at(x), y_axis.at(y)) for x, y in line]
        path = " ".join(f"{x},{y}" for x, y in dots)
        out.append(f'<polyline class="line" stroke="{colour}" points="{path}"/>')
        out += [f'<circle cx="{x}" cy="{y}" r="2.5" fill="{colour}"/>' for x, y in dots]
        if len(panel.lines) > 1:
            out.append(f'<text x="{legend:g}" y="30" style="fill:{colour}">{escape(label)}</text>')
            legend += 7 * len(label) + 12
    return out + ["</g>"]


def draw(panels: list[Panel], title: str) -> str:
    rows = math.ceil(len(panels) / COLUMNS)
    width, height = WIDTH * COLUMNS, HEADER + HEIGHT * rows
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
           f'width="{width}" height="{height}">', f"<style>{STYLE}</style>",
           '<rect width="100%" height="100%" fill="#fff"/>',
           f'<text class="head" x="{LEFT}" y="20">{escape(title)}</text>']
    for index, panel in enumerate(panels):
        out += draw_panel(panel, index % COLUMNS * WIDTH, HEADER + index // COLUMNS * HEIGHT)
    return "\n".join(out + ["</svg>"]) + "\n"
