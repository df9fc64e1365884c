"""What nobody well-meaning sends: each is refused, and harms nothing."""
