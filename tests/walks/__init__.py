"""Random walks: no order of calls does harm."""
