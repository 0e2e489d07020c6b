"""Pages from the templates beside this file: each is one file that refers to nothing outside.

jinja2 escapes whatever a template writes that is not `Markup`, so that no name of a clip or a
speaker becomes an element. Only the drawings of `plots.py` are `Markup`.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from mmembed import __version__
from mmembed.io.atomic import atomic_file
from mmembed.report.score_table import number, percent


def write_page(template: str, out: Path, **values: object) -> Path:
    """Write a page; the same values give the same bytes.

    Args:
        template: a file of `templates/`.
        out: the file to write.
        values: what the template shows.

    Returns:
        The file written.
    """
    html = _templates().get_template(template).render(contents=[], **values)
    with atomic_file(out) as file:
        file.write(html.encode("utf-8", "backslashreplace"))  # a file's name may be no valid text
    return out


@cache
def _templates() -> Environment:
    templates = Environment(
        loader=PackageLoader("mmembed.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        extensions=["jinja2.ext.do"],
    )
    templates.filters.update(
        number=number,
        percent=percent,
        anchor=lambda title: "-".join(title.lower().split()),
    )
    templates.globals["version"] = __version__
    return templates
