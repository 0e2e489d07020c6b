"""A page on this machine that shows what a frozen encoder hears and sees in a clip.

Parts: `analysis` (a clip to everything that the page shows), `server` (HTTP, and who may ask),
`page/` (what the browser runs: no library, nothing from elsewhere).
"""
