"""The tests: a folder for each noun, and `kit` for what they share."""
