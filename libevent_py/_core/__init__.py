"""What everything else stands on: who owns what, who frees it, and how C calls Python."""
