"""Small programs to copy from; each says at its top what it shows, and runs as ``python FILE``."""
