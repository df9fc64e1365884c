"""What each Python imports that runs with a sanitizer."""
