"""Which classes are taken for which: the confusion matrix as a heat map, and the commonest mix-ups."""

from collections.abc import Sequence
from html import escape

MOST_ROOMY = 12  # classes up to which each cell has room for its count and its share
MOST_DENSE = 40  # classes up to which cells are small, and above which they are tiny
MOST_CLASSES = 120  # classes beyond which a matrix is too large to read; the commonest mix-ups still tell
MOST_MIXUPS = 15


def matrix(counts_CC: Sequence[Sequence[int]], names: Sequence[str]) -> str:
    """The heat map: right ones on the diagonal in one colour, mistakes in another; '' for too many classes."""
    if len(names) > MOST_CLASSES:
        return ""
    is_roomy = len(names) <= MOST_ROOMY
    size = "roomy" if is_roomy else "dense" if len(names) <= MOST_DENSE else "dense tiny"
    heads = [f'<th title="{escape(name)}"><span>{escape(name)}</span></th>' for name in names]
    rows = []
    for r, counts in enumerate(counts_CC):
        total = sum(counts)
        cells = "".join(_cell(n, total, names[r], names[p], is_right=r == p, is_roomy=is_roomy) for p, n in enumerate(counts))
        rows.append(f'<tr>{heads[r]}{cells}<td class="sum">{total:,}</td></tr>')
    return (
        f'<div class="scroll"><table class="matrix {size}"><thead><tr><th>reference \\ prediction</th>{"".join(heads)}'
        f'<th class="sum">rows</th></tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
    )


def mixups(counts_CC: Sequence[Sequence[int]], names: Sequence[str]) -> list[tuple[str, str, int, float]]:
    """The commonest mistakes: reference, prediction, number of rows, and their share of the reference's rows."""
    found = [
        (names[r], names[p], count, count / sum(counts))
        for r, counts in enumerate(counts_CC)
        for p, count in enumerate(counts)
        if count and r != p
    ]
    return sorted(found, key=lambda mixup: (-mixup[2], -mixup[3]))[:MOST_MIXUPS]


def _cell(count: int, total: int, reference: str, prediction: str, *, is_right: bool, is_roomy: bool) -> str:
    share = count / total if total else 0.0
    kind = "right" if is_right else "wrong"
    if not count:
        return f'<td class="{kind} zero">{0 if is_roomy else ""}</td>'
    # The root shows small shares, which would look like none.
    depth = share**0.5
    strong = " strong" if depth > 0.7 else ""
    content = f"<b>{count:,}</b><small>{share:.1%}</small>" if is_roomy else f"{count}"
    told = f' title="{escape(reference)} → {escape(prediction)}: {count:,} ({share:.1%})"'
    return f'<td class="{kind}{strong}" style="--depth:{depth:.2f}"{told}>{content}</td>'
