"""Frames, pages and headers of stored media, read without a decoder: where streams begin, and how long they are."""
