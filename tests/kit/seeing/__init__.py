"""What each Python imports whose programs tell which public names they use."""
