"""Small programs to copy from; each says at the top what it shows, and runs as ``python FILE``."""
