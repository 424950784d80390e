"""The samples of a soak as a plot: SVG, made of nothing but text."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape
from typing import Final

from .samples import Sample

_WIDTH, _LEFT, _RIGHT, _PANEL, _GAP, _TOP = 860, 70, 150, 120, 42, 50
_FONT: Final = 'font-family="sans-serif" font-size="12"'
_COLOURS: Final = ("#d6336c", "#1c7ed6", "#2f9e44", "#f08c00", "#7048e8")
_MIB: Final = 1 << 20

Line = tuple[str, Callable[[Sample], float]]
_PANELS: Final[Sequence[tuple[str, tuple[Line, ...]]]] = (
    ("memory of the engine, MiB", (("resident", lambda each: each.memory / _MIB),)),
    ("blocks of memory, thousands", (("blocks", lambda each: each.memory_blocks / 1000),)),
    ("tasks and files of the engine", (
        ("Trio tasks", lambda each: each.tasks),
        ("open files", lambda each: each.files),
        ("of these, sockets", lambda each: each.sockets),
    )),
    ("what the engine holds", (
        ("sessions", lambda each: each.sessions),
        ("channels", lambda each: each.channels),
        ("functions", lambda each: each.functions),
        ("bindings", lambda each: each.bindings),
    )),
    ("use of the machine, cores", (("engine", lambda each: each.cpu), ("everybody", lambda each: each.load))),
)  # fmt: skip


def draw(samples: Sequence[Sample], warm_up: float) -> str:
    """A panel for each kind of figure, over the minutes. Dots: all workers have gone. Grey: the warm-up, not judged."""
    minutes = max((each.at for each in samples), default=0.0) / 60 or 1.0
    wide = _WIDTH - _LEFT - _RIGHT
    height = _TOP + len(_PANELS) * (_PANEL + _GAP)

    def x(at: float) -> float:
        return _LEFT + wide * at / 60 / minutes

    parts = [
        _text(
            _LEFT, 22, "A real soak, minute by minute (dots: all workers have gone; grey: warm-up)", "start", bold=True
        )
    ]
    for number, (title, lines) in enumerate(_PANELS):
        top = _TOP + number * (_PANEL + _GAP)
        values = [value(each) for each in samples for _, value in lines] or [0.0]
        low, high, step = _scale(min(values), max(values))

        def y(value: float, top: float = top, low: float = low, high: float = high) -> float:
            return top + _PANEL * (high - value) / (high - low)

        parts.append(f'<rect x="{_LEFT}" y="{top}" width="{x(warm_up) - _LEFT:.1f}" height="{_PANEL}" fill="#f1f3f5"/>')
        parts.append(_text(_LEFT, top - 6, title, "start", bold=True))
        level = low
        while level <= high + step / 2:
            at = y(level)
            parts.append(f'<line x1="{_LEFT}" y1="{at:.1f}" x2="{_LEFT + wide}" y2="{at:.1f}" stroke="#dee2e6"/>')
            parts.append(_text(_LEFT - 8, at + 4, f"{level:g}", "end"))
            level = round(level + step, 6)
        for index, (name, value) in enumerate(lines):
            colour = _COLOURS[index]
            points = " ".join(f"{x(each.at):.1f},{y(value(each)):.1f}" for each in samples if not each.quiet)
            parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.2"/>')
            parts += [
                f'<circle cx="{x(each.at):.1f}" cy="{y(value(each)):.1f}" r="2.5" fill="{colour}"/>'
                for each in samples
                if each.quiet
            ]
            legend = top + 12 + 18 * index
            parts.append(f'<rect x="{_LEFT + wide + 14}" y="{legend - 9}" width="10" height="10" fill="{colour}"/>')
            parts.append(_text(_LEFT + wide + 30, legend, name, "start"))
    for tick in range(0, int(minutes) + 1, max(1, math.ceil(minutes / 12))):
        parts.append(_text(x(60 * tick), height - _GAP + 18, f"{tick} min", "middle"))
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}">'
    )
    return "\n".join([head, '<rect width="100%" height="100%" fill="white"/>', *parts, "</svg>"]) + "\n"


def _scale(least: float, most: float) -> tuple[float, float, float]:
    """Where an axis begins and ends, and its steps: from 0, unless the figures are far from it and near each other."""
    if least > 0.5 * most:
        step = _round_up(max((most - least) / 3, most / 100))
        return step * math.floor(least / step - 0.5), step * math.ceil(most / step + 0.5), step
    step = _round_up((most or 1.0) / 4)
    return 0.0, step * math.ceil((most or 1.0) / step), step


def _round_up(value: float) -> float:
    """The next of 1, 2, 5 times a power of ten."""
    power: float = 10.0 ** math.floor(math.log10(value))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= value * (1 - 1e-9))


def _text(x: float, y: float, text: str, anchor: str, *, bold: bool = False) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" {_FONT} text-anchor="{anchor}"{weight}>{escape(text)}</text>'
