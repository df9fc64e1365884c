"""WSGI and ASGI applications, served to real clients."""
