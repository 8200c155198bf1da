"""A run directory, from its birth to its report."""
