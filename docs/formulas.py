"""Write the pages' formulas as MathML, which browsers draw by themselves: a hook of MkDocs."""

from __future__ import annotations

import html
import re

from latex2mathml.converter import convert
from mkdocs.exceptions import PluginError

FORMULA = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)


def on_page_content(content: str, **_: object) -> str:
    """Replace the LaTeX that pymdownx.arithmatex has marked."""
    return FORMULA.sub(mathml, content)


def mathml(found: re.Match[str]) -> str:
    """Return a formula's MathML: \\( … \\) within its line, \\[ … \\] on a line of its own."""
    tag, bracket, latex = found.groups()
    # without \left and \right a bar would be spaced as an operator
    latex = re.sub(r"\\(?=lvert|lVert)", r"\\left\\", re.sub(r"\\(?=rvert|rVert)", r"\\right\\", latex))
    # within \text latex2mathml shows the backslash of "\_"
    latex = re.sub(r"\\text\{[^}]*\}", lambda text: text[0].replace(r"\_", "_"), latex)
    formula = convert(html.unescape(latex).strip(), display="block" if bracket == "[" else "inline")
    if "\\" in formula:
        raise PluginError(f"no MathML for all of {latex.strip()!r}: write it with other commands of LaTeX")
    return f'<{tag} class="formula">{formula}</{tag}>'
