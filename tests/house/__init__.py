"""The project itself: its code, its documentation, its packages."""
