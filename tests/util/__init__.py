"""The log, debugging, tags and the small functions."""
