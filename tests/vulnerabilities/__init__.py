"""The published vulnerabilities of libevent."""
