"""RPCs, and the messages that they carry."""
