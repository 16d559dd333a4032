"""Self-contained HTML pages.

Pictures are inline, styles are in the page, nothing is loaded.
"""

import html
from collections.abc import Sequence

_STYLE = """
:root { color-scheme: light; }
body { margin: 0 auto; max-width: 66rem; padding: 2rem 1.5rem 4rem; color: #1f2933;
  background: #fff; font: 16px/1.55 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; }
h1 { font-size: 1.7rem; margin: 0 0 .3rem; } h2 { font-size: 1.25rem; margin: 2.6rem 0 .5rem; }
h3 { font-size: 1rem; margin: 1.6rem 0 .2rem; }
p { max-width: 46rem; margin: .6rem 0; } .small { color: #52606d; font-size: .9rem; }
.verdict { border-left: 5px solid #1b7837; background: #f0f7f1; padding: .7rem 1rem;
  margin: 1.2rem 0; } .verdict.missed { border-color: #b2182b; background: #fbf0f0; }
.verdict.open { border-color: #7b8794; background: #f5f7fa; }
.verdict p { margin: .2rem 0; } figure { margin: 1rem 0; }
figcaption { color: #52606d; font-size: .92rem; max-width: 46rem; margin-top: .3rem; }
svg { display: block; height: auto; max-width: 100%; } .scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .86rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .32rem .7rem .32rem 0; border-bottom: 1px solid #e4e7eb;
  vertical-align: top; } th { color: #52606d; font-weight: 600; }
td.number { text-align: right; white-space: nowrap; } code { font-size: .9em; }
"""


def page(title: str, blocks: Sequence[str]) -> str:
    """The whole document; `blocks` is its body as HTML, in order."""
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<title>{html.escape(title)}</title><meta name="viewport" content="width=device-width">'
        f"<style>{_STYLE}</style></head>\n<body>\n" + "\n".join(blocks) + "\n</body></html>\n"
    )


def figure(svg: str, caption: str) -> str:
    """A picture above its caption, both HTML."""
    return f"<figure>{svg}<figcaption>{caption}</figcaption></figure>"


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Plain text in cells; those that begin with a number stand at the right."""
    head = "".join(f"<th>{html.escape(column)}</th>" for column in columns)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    return f'<div class="scroll"><table><tr>{head}</tr>{body}</table></div>'


def _cell(text: str) -> str:
    is_number = text[:1].isdigit() or (text[:1] == "-" and text[1:2].isdigit())
    css = ' class="number"' if is_number else ""
    return f"<td{css}>{html.escape(text)}</td>"
