"""A page on this machine that shows what a frozen encoder finds in a clip.

Parts: `analysis` (from a clip to everything that the page shows), `server` (HTTP, and which
requests are answered), `upload` (a clip as it arrives, and its limit), `connections` (how many),
`page/` (what the browser runs: no library, nothing from elsewhere).
"""
