"""DNS: lookups and servers."""
