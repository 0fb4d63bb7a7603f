"""Vectors to disk and back: the only place that knows SQL, picture files and index parameters."""
