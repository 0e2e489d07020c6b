"""Talkers: synthetic people who speak and show what they feel; nothing to download."""
