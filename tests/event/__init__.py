"""Event bases, their loops and their events."""
