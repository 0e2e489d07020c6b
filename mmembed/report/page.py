"""The page around the sections: one file, no outside reference, light and dark."""

from __future__ import annotations

from collections.abc import Sequence

from mmembed.report.html import Html, Section, join, tag

_STYLE = Html("""
:root { color-scheme: light dark; --text: #1d2230; --soft: #667085; --page: #fbfbfc;
  --card: #ffffff; --line: #e3e6ec; --grid: #d9dde5; --accent: #4c78d0; --warn: #c94f5d; }
@media (prefers-color-scheme: dark) { :root { --text: #e6e8ee; --soft: #9aa3b5; --page: #14161c;
  --card: #1c1f28; --line: #2c313d; --grid: #353b49; --accent: #7da2ee; --warn: #ec7f8b; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--text);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; }
main, header, nav { max-width: 66rem; margin: 0 auto; padding: 0 1.25rem; }
header { padding-top: 2.5rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0; letter-spacing: -.02em;
  overflow-wrap: anywhere; }
h2 { font-size: 1.3rem; margin: 0 0 .3rem; letter-spacing: -.01em; }
h3 { font-size: 1rem; margin: 1.8rem 0 .5rem; }
.eyebrow { color: var(--accent); font-weight: 600; font-size: .85rem; margin: 0 0 .3rem; }
.lead { color: var(--soft); margin: 0 0 1rem; max-width: 46rem; font-size: .95rem; }
nav { display: flex; flex-wrap: wrap; gap: .3rem 1.1rem; margin-top: 1.2rem; font-size: .9rem; }
a { color: var(--accent); text-decoration: none; }
a:hover { text-decoration: underline; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 12px;
  padding: 1.5rem 1.6rem 1.6rem; margin: 1.4rem 0; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(10.5rem, 1fr)); gap: .8rem;
  margin: 1.5rem 0 0; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 12px;
  padding: .9rem 1.1rem; display: flex; flex-direction: column; }
.card b { font-size: 1.7rem; line-height: 1.25; font-variant-numeric: tabular-nums; }
.card span { font-weight: 600; font-size: .9rem; }
small { color: var(--soft); font-size: .8rem; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .9rem;
  font-variant-numeric: tabular-nums; }
caption { text-align: left; color: var(--soft); }
th, td { text-align: right; padding: .4rem .45rem; border-bottom: 1px solid var(--line);
  white-space: nowrap; vertical-align: top; font-weight: 400; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
tbody th { white-space: normal; min-width: 7rem; overflow-wrap: anywhere; }
thead th { color: var(--soft); font-size: .82rem; vertical-align: bottom; }
tbody tr:last-child > * { border-bottom: 0; }
td b { color: var(--accent); }
td small { display: block; font-size: .74rem; }
.spread { color: var(--soft); font-size: .82rem; }
.sub { display: inline-block; color: var(--soft); padding-left: .9rem; }
.confusions table { width: auto; }
.confusions td { padding: .15rem; text-align: center; border: 0; }
.confusions th { text-align: center; border: 0; }
.confusions th:first-child { text-align: right; padding-right: .8rem; }
.confusions td i { display: block; min-width: 4.2rem; padding: .45rem .6rem; border-radius: 6px;
  font-style: normal;
  background: color-mix(in srgb, var(--accent) calc(var(--share) * 75%), transparent); }
figure { margin: .4rem 0; }
figure svg { display: block; width: 100%; height: auto; }

figure svg text { font-family: inherit !important; }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1rem; color: var(--soft); font-size: .82rem;
  margin: .5rem 0; align-items: center; }
.legend span { display: inline-flex; align-items: center; gap: .4rem; }
.legend i { width: .7rem; height: .7rem; border-radius: 50%; flex: none; }
.legend i.ramp { width: 8rem; border-radius: 4px;
  background: linear-gradient(90deg, #3b4cc0, #9abbff, #dddcdc, #f4987a, #b40426); }
.sample { border-top: 1px solid var(--line); padding: .55rem 0; font-size: .92rem; }
.sample p { margin: 0; }
.faces { display: grid; grid-template-columns: repeat(auto-fill, minmax(5.5rem, 1fr)); gap: .7rem; }
.faces figure { margin: 0; }
.faces img { display: block; width: 100%; border-radius: 8px; }
.faces small { display: block; font-size: .7rem; line-height: 1.3; margin-top: .2rem; }
.facts td { text-align: left; white-space: normal; overflow-wrap: anywhere; }
del, ins { text-decoration: none; border-radius: 4px; padding: 0 .2em; }
del { background: color-mix(in srgb, var(--warn) 22%, transparent); }
ins { background: color-mix(in srgb, var(--accent) 24%, transparent); }
.missing { color: var(--soft); border-left: 3px solid var(--warn); padding-left: .8rem;
  margin: .8rem 0; font-size: .92rem; }
code { font: .9em ui-monospace, "SF Mono", Menlo, Consolas, monospace; }
details { margin: .4rem 0; }
summary { cursor: pointer; font-weight: 600; }
details td { text-align: left; white-space: normal; overflow-wrap: anywhere;
  font-family: ui-monospace, "SF Mono", Menlo, Consolas, monospace; font-size: .82rem; }
footer { color: var(--soft); font-size: .82rem; padding: .4rem 0 2.5rem; }
@media (max-width: 40rem) { section { padding: 1.1rem; } figure { overflow-x: auto; }
  figure svg { min-width: 36rem; } }
@media print { section { break-inside: avoid; border: 0; padding: 0; } nav { display: none; } }
""")

# Even a browser that is online may load nothing: the report shows the run and calls nobody.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def page(title: str, summary: Html, sections: Sequence[Section], note: str) -> Html:
    """The whole document, with a table of contents."""
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        tag("title", f"{title} - mmembed report"),
        tag("style", _STYLE),
    )
    contents = tag("nav", [tag("a", part.title, href=f"#{part.anchor}") for part in sections])
    body = tag(
        "body",
        tag("header", tag("p", "mmembed report", class_="eyebrow"), tag("h1", title), summary),
        contents,
        tag("main", [part.html() for part in sections], tag("footer", note)),
    )
    return join(Html("<!doctype html>"), tag("html", head, body, lang="en"), "\n")
