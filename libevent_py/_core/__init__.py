"""The core that all other modules use: who owns and frees what, and how C calls Python."""
