"""The page in a real browser: a clip is dropped, and what comes is shown as text."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from helpers.browser import CHROMIUM, Browser
from helpers.served import CLIPS, HOSTILE, open_served, write_served

from mmembed.serve.server import Address, listening

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")

IDLE = "!document.body.classList.contains('busy')"


def texts(selector: str) -> str:
    return f"[...document.querySelectorAll({json.dumps(selector)})].map(e => e.textContent)"


def test_a_dropped_clip_is_shown(tmp_path: Path) -> None:
    made = write_served(tmp_path)
    hostile = made / f"{HOSTILE.replace('/', '')}.mp4"  # a name can hold all else
    hostile.write_bytes((made / "clip.mp4").read_bytes())

    async def scenario(url: str, browser: Browser) -> None:
        await browser.call("Page.navigate", url=url)
        await browser.until("document.readyState == 'complete' && about !== null")

        await browser.drop(".drop", made / "bad.mp4")
        await browser.until("!document.getElementById('error').hidden")
        (line,) = await browser.run(texts("#error"))
        assert line.startswith("bad.mp4: not a media file") and "\n" not in line

        await browser.drop(".drop", hostile)
        await browser.until(f"shown && {IDLE}")
        assert await browser.run(texts("#name")) == [hostile.name]
        assert await browser.run("document.getElementById('error').hidden")
        heard = await browser.run("shown.transcript")
        assert await browser.run(texts("#words button")) == heard.split()
        lanes = await browser.run(texts("#plot .label"))
        assert lanes == [
            "words",
            "sentiment",
            "happy",
            "sad",
            "anger",
            "surprise",
            "disgust",
            "fear",
        ]
        assert len(await browser.run(texts("#plot .curve"))) == 7
        assert len(await browser.run(texts("#emotion tr"))) == 7
        assert len(await browser.run(texts("#streams .absent"))) == 1
        assert await browser.run(texts("#nearest q")) == [HOSTILE] * CLIPS
        assert len(await browser.run(texts("#nearest img"))) == CLIPS

        # Whatever it was called and whoever said it: no element came of it, and nothing ran.
        assert (
            await browser.run("document.querySelectorAll('img[onerror], bdi b, q b').length") == 0
        )
        assert await browser.run("document.title") == "mmembed"

        # The clip plays from here; a click on a word and the arrow keys go there.
        await browser.until("document.getElementById('player').readyState > 0")
        start = await browser.run(
            "document.querySelector('#words button').click(), shown.words[0].start"
        )
        await browser.until(f"document.getElementById('player').currentTime >= {start}")
        await browser.run("document.getElementById('player').pause(), seek(0.5), $('plot').focus()")
        await browser.press("ArrowRight")
        await browser.until("$('plot').getAttribute('aria-valuenow') == '0.60'")
        assert "sentiment" in await browser.run("$('plot').getAttribute('aria-valuetext')")

        # Known words, by keyboard alone.
        await browser.run("document.getElementById('text').focus()")
        for letter in "red on":
            await browser.press(letter)
        await browser.press("Enter")
        await browser.until(f"shown.transcript_from == 'given' && {IDLE}")
        assert await browser.run(texts("#words button")) == ["red", "on"]

        outside = [
            one for one in browser.requests if not one.startswith((url, f"blob:{url}", "data:"))
        ]
        assert outside == []
        await browser.run("fetch('https://example.org/').catch(() => 0)")
        assert any("Content Security Policy" in line for line in browser.complaints)
        mistakes = [line for line in browser.complaints if "Content Security Policy" not in line]
        assert [line for line in mistakes if "422" not in line] == []  # the bad clip's

    async def run() -> None:
        about = {"encoder": HOSTILE, "sha256": "0" * 64, "clips": CLIPS, "regressor": True}
        analyser = open_served(made)
        async with listening(analyser, about, Address(port=0)) as url, Browser() as browser:
            await scenario(url, browser)

    asyncio.run(run())
