"""The lean runtime: a bundle and a scene in, map tiles out. Never imports torch."""
