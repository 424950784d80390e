"""Plots as SVG, made of nothing but text."""

from __future__ import annotations

import math
from html import escape

from .table import OURS, Table, in_figures

_COLOURS = ["#d6336c", "#868e96", "#1c7ed6", "#2f9e44", "#f08c00", "#7048e8", "#0c8599"]
_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 760, 400, 70, 190, 50, 50
_FONT = 'font-family="sans-serif" font-size="12"'


def lines(table: Table) -> str:
    """One line a column over the rows, the figures on a logarithmic scale."""
    values = [value for row in table.rows.values() for value in row.values() if value > 0]
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    rows = list(table.rows)
    wide, tall = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM

    def x(at: int) -> float:
        return _LEFT + wide * at / max(1, len(rows) - 1)

    def y(value: float) -> float:
        return _TOP + tall * (high - math.log10(value)) / max(1, high - low)

    parts = [_text(_LEFT, 25, f"{table.title} ({table.unit}, logarithmic)", "start", bold=True)]
    for power in range(low, high + 1):
        level = y(10**power)
        parts.append(f'<line x1="{_LEFT}" y1="{level:.1f}" x2="{_LEFT + wide}" y2="{level:.1f}" stroke="#dee2e6"/>')
        parts.append(_text(_LEFT - 8, level + 4, f"{10.0**power:g}", "end"))
    for at, row in enumerate(rows):
        parts.append(_text(x(at), _HEIGHT - _BOTTOM + 22, row, "middle"))
    for number, column in enumerate(table.columns):
        colour = _COLOURS[number % len(_COLOURS)]
        found = [(x(at), y(table.rows[row][column])) for at, row in enumerate(rows) if table.rows[row].get(column)]
        points = " ".join(f"{across:.1f},{down:.1f}" for across, down in found)
        width = 3 if column == OURS else 1.5
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="{width}"/>')
        parts += [f'<circle cx="{across:.1f}" cy="{down:.1f}" r="3" fill="{colour}"/>' for across, down in found]
        legend = _TOP + 10 + 20 * number
        parts.append(f'<rect x="{_LEFT + wide + 20}" y="{legend - 9}" width="10" height="10" fill="{colour}"/>')
        parts.append(_text(_LEFT + wide + 36, legend, column, "start", bold=column == OURS))
    return _whole(parts, _HEIGHT)


def bars(table: Table) -> str:
    """A group of horizontal bars a row, each row on its own scale."""
    parts = [_text(10, 25, f"{table.title} ({table.unit})", "start", bold=True)]
    at = 50
    for row, values in table.rows.items():
        parts.append(_text(10, at, row, "start", bold=True))
        at += 8
        longest = max(values.values())
        for number, column in enumerate(table.columns):
            if column not in values:
                continue
            length = 380 * values[column] / longest
            colour = _COLOURS[number % len(_COLOURS)]
            parts.append(_text(160, at + 12, column, "end"))
            parts.append(f'<rect x="168" y="{at}" width="{length:.1f}" height="15" fill="{colour}"/>')
            parts.append(_text(174 + length, at + 12, in_figures(values[column]), "start"))
            at += 19
        at += 22
    return _whole(parts, at)


def _text(x: float, y: float, text: str, anchor: str, *, bold: bool = False) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" {_FONT} text-anchor="{anchor}"{weight}>{escape(text)}</text>'


def _whole(parts: list[str], height: int) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}">'
    )
    return "\n".join([head, '<rect width="100%" height="100%" fill="white"/>', *parts, "</svg>"]) + "\n"
