"""What the HTML pages are made of: no scripts, no network, nothing that the data hold can run. Colours: report.css."""

from collections.abc import Sequence
from html import escape
from pathlib import Path

import llmtune
from llmtune.files import replacing

LONGEST_AT_ONCE = 280  # characters of a text that are shown before one asks for the rest
LONGEST = 20_000
# Nothing on the page may run or be fetched, whatever the data hold.
POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def write(path: Path, *, title: str, facts: Sequence[tuple[str, str]], parts: Sequence[str]) -> None:
    """Write a page of `section`s.

    Args:
        path: of the file.
        title: of the page.
        facts: name and value of what one wants to know first.
        parts: HTML; empty ones are left out.
    """
    style = Path(__file__).with_name("report.css").read_text(encoding="utf-8")
    told = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts)
    with replacing(path) as file:
        file.write(
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<title>{escape(title)}</title><style>\n{style}</style></head>\n"
            f'<body><h1>{escape(title)}</h1><dl class="facts">{told}</dl>\n'
            + "\n".join(part for part in parts if part)
            + f"\n<footer>llmtune {escape(llmtune.__version__)}</footer></body></html>\n"
        )


def section(title: str, content: str, hint: str = "") -> str:
    """A part of a page; '' without content."""
    return f"<section><h2>{title}</h2>{f'<p>{hint}</p>' if hint else ''}{content}</section>" if content else ""


def tiles(values: Sequence[tuple[str, str]]) -> str:
    """Names and values in large print, the first one the most prominent."""
    cells = [
        f'<div class="tile{" first" if i == 0 else ""}"><span>{escape(name)}</span><b>{escape(value)}</b></div>'
        for i, (name, value) in enumerate(values)
    ]
    return f'<div class="tiles">{"".join(cells)}</div>'


def table(columns: dict[str, str], rows: Sequence[Sequence[str]]) -> str:
    """A table of cells that are HTML; `columns` maps each heading to the class of its cells in the style sheet."""
    head = "".join(f'<th class="{kind}">{heading}</th>' for heading, kind in columns.items())
    body = ["".join(f'<td class="{kind}">{c}</td>' for c, kind in zip(cells, columns.values(), strict=True)) for cells in rows]
    body_rows = "".join(f"<tr>{cells}</tr>" for cells in body)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body_rows}</tbody></table></div>'


def bar(text: str, share: float, kind: str) -> str:
    """A cell that is coloured up to a share of its width; `kind`: 'right' or 'wrong'."""
    return f'<span class="bar {kind}" style="--share:{share:.3f}">{text}</span>'


def text(content: str) -> str:
    """A text of unknown origin; a long one is opened by a click."""
    if len(content) <= LONGEST_AT_ONCE:
        return f'<div dir="auto">{escape(content)}</div>'
    start = f"<span>{escape(content[:LONGEST_AT_ONCE])}…</span>"
    rest = f"{content[:LONGEST]}… ({len(content) - LONGEST:,} more characters)" if len(content) > LONGEST else content
    return f'<div dir="auto"><details><summary>{start}</summary>{escape(rest)}</details></div>'


def gallery(pictures: Sequence[str]) -> str:
    """Pictures beside each other; '' if there is none."""
    return f'<div class="charts">{"".join(pictures)}</div>' if any(pictures) else ""
