"""HTTP: clients and servers."""
