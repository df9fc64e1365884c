"""The samples, each run as a process."""
