"""inspect.html: what an inspection saw, with pictures; no scripts and no network."""

import shlex
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

import numpy as np

from llmtune.evaluation import page, plots
from llmtune.evaluation.page import bar, gallery, section, table, text, tiles
from llmtune.inspection.copies import Cluster
from llmtune.inspection.findings import Example, Finding
from llmtune.inspection.inspect import WEIGHTS, Inspection, SplitFacts, quantiles
from llmtune.inspection.labels import Suspicious

_MOST_CLASSES = 100  # that are shown
_WEIGHT_NAMES = {"fix": "to be fixed", "look": "to be looked at", "note": "notes"}


def write(path: Path, found: Inspection, *, title: str, facts: Sequence[tuple[str, str]]) -> None:
    """Write the page.

    Args:
        path: of the file.
        found: what was seen.
        title: of the page.
        facts: name and value of what one wants to know first.
    """
    splits = found.splits
    accuracy = f"{found.accuracy:.1%}" if found.accuracy is not None else ""
    parts = [
        section("Overview", _overview(found)),
        section("What to change", _remedy(found), "Deals with all that is to be fixed."),
        section("Findings", _findings(found.findings)),
        section("Splits", _splits(found)),
        section("Lengths and targets", _pictures(splits)),
        section("Classes", _classes(found.classes)),
        section("Scripts", _scripts(splits)),
        section("Most suspicious labels", _suspicious(found.suspicious), f"A quick linear model, right for {accuracy} of rows "
                "that it has not seen, is sure that another label is right. It errs, too: look before you leave rows out."),
        section("Largest clusters of copies", _clusters(found.clusters)),
    ]  # fmt: skip
    page.write(path, title=title, facts=facts, parts=parts)


def _overview(found: Inspection) -> str:
    rows = [(f"{name} rows", f"{split.rows:,}") for name, split in found.splits.items()]
    counts = [sum(finding.weight == weight for finding in found.findings) for weight in WEIGHTS]
    return tiles([*rows, *((_WEIGHT_NAMES[weight], str(count)) for weight, count in zip(WEIGHTS, counts, strict=True))])


def _remedy(found: Inspection) -> str:
    return f"<pre><code>{escape(shlex.join(found.remedy))}</code></pre>" if found.remedy else ""


def _findings(findings: Sequence[Finding]) -> str:
    if not findings:
        return "<p>Nothing odd was found.</p>"
    rows = [
        [
            f'<span class="tag {finding.weight}">{finding.weight}</span>',
            escape(finding.title),
            escape(finding.split),
            f"{finding.count:,}",
            bar(_share(finding.count / finding.total), finding.count / finding.total, "plain"),
            _fix(finding),
            _rows_of(finding.examples),
        ]
        for finding in findings
    ]
    columns = {"": "", "what": "", "split": "", "rows": "number", "share": "number", "override": "", "examples": "text"}
    return f'<div class="findings">{table(columns, rows)}</div>'


def _fix(finding: Finding) -> str:
    command = f"<code>{escape(shlex.join(finding.overrides))}</code><br>" if finding.overrides else ""
    return f"{command}<small>{escape(finding.advice)}</small>"


def _rows_of(examples: Sequence[Example]) -> str:
    if not examples:
        return ""
    shown = [_row(example) for example in examples]
    more = f"<details><summary><span>and {len(shown) - 1} more</span></summary>{''.join(shown[1:])}</details>"
    return shown[0] + (more if len(shown) > 1 else "")


def _row(example: Example) -> str:
    note = f" · {escape(example.note)}" if example.note else ""
    return f"<div><small>{escape(example.place)}{note}</small>{text(example.text)}</div>"


def _splits(found: Inspection) -> str:
    rows = []
    for name, split in found.splits.items():
        how = "set aside from the train rows" if split.is_made else f"{found.given.get(name, 0):,} rows were given"
        cut = ""
        if split.tokens_N is not None and found.max_length is not None:
            num_cut = int((split.tokens_N > found.max_length).sum())
            cut = f"{num_cut:,} ({_share(num_cut / split.rows)})"
        rows.append([escape(name), f"{split.rows:,}", how, _spread(split.characters_N), _spread(split.tokens_N), cut])
    at = f" at {found.max_length:,}" if found.max_length is not None else ""
    columns = {"split": "", "rows": "number", "from": "", "characters": "number", "tokens": "number", f"cut{at}": "number"}
    return table(columns, rows) + "<p>Lengths: 5 %, median, 95 %, longest.</p>"


def _spread(values_N: np.ndarray | None) -> str:
    if values_N is None or not len(values_N):
        return "–"
    found = quantiles(values_N)
    return " · ".join(f"{found[name]:,.0f}" for name in ("5%", "50%", "95%", "max"))


def _pictures(splits: Mapping[str, SplitFacts]) -> str:
    named = {
        "Characters": ("characters_N", "characters of a row"),
        "Tokens": ("tokens_N", "tokens of a row"),
        "Targets": ("targets_N", "number to predict"),
    }
    pictures = []
    for title, (attribute, x_name) in named.items():
        values = {name: getattr(split, attribute) for name, split in splits.items()}
        pictures.append(plots.histogram(title, {k: v for k, v in values.items() if v is not None}, x_name=x_name))
    return gallery(pictures)


def _classes(classes: Mapping[str, Mapping[str, int]]) -> str:
    if not classes:
        return ""
    names = list(classes["train"])
    totals = {split: max(sum(found.values()), 1) for split, found in classes.items()}
    largest = max(found[name] / totals[split] for split, found in classes.items() for name in names)
    rows = [
        [
            escape(name),
            *(
                bar(f"{found[name]:,} ({_share(found[name] / totals[split])})", found[name] / totals[split] / largest, "right")
                for split, found in classes.items()
            ),
        ]
        for name in names[:_MOST_CLASSES]
    ]
    more = f"<p>{len(names) - _MOST_CLASSES:,} more classes are in inspect.json.</p>" if len(names) > _MOST_CLASSES else ""
    return table({"class": "", **dict.fromkeys(classes, "number")}, rows) + more


def _scripts(splits: Mapping[str, SplitFacts]) -> str:
    names = list(dict.fromkeys(name for split in splits.values() for name in split.scripts))
    rows = [
        [
            escape(name),
            *(
                bar(f"{n:,} ({_share(n / split.rows)})", n / split.rows, "plain")
                for split in splits.values()
                for n in [split.scripts.get(name, 0)]
            ),
        ]
        for name in names
    ]
    return table({"script": "", **dict.fromkeys(splits, "number")}, rows) if rows else ""


def _suspicious(rows: Sequence[Suspicious]) -> str:
    cells = [[f"{row.score:.3f}", escape(row.given), escape(row.suggested), _row(Example(row.place, row.text))] for row in rows]
    columns = {"score": "number", "label": "", "rather": "", "row": "text"}
    return f'<div class="examples">{table(columns, cells)}</div>' if cells else ""


def _clusters(clusters: Sequence[Cluster]) -> str:
    rows = [
        [
            f"{cluster.size:,}",
            escape(cluster.split),
            ", ".join(f"{escape(name)} {count:,}" for name, count in list(cluster.labels.items())[:6]),
            _rows_of(cluster.rows),
        ]
        for cluster in sorted(clusters, key=lambda cluster: -cluster.size)
    ]
    return table({"rows": "number", "split": "", "labels": "", "texts": "text"}, rows) if rows else ""


def _share(share: float) -> str:
    return f"{share:.1%}" if share >= 0.001 or not share else "under 0.1%"
