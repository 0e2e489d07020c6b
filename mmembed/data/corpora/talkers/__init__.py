"""Talkers: synthetic people who speak and express emotions; nothing to download.

`grammar` writes sentences, `voice` speaks them, `face` draws faces, `acting` says what feelings do
to voice and face and what the labels are, `clip` puts one clip together, `corpus` all of them.
"""

from mmembed.data.corpora.talkers.corpus import generate

__all__ = ["generate"]
