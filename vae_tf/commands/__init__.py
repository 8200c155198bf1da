"""What is typed: flags, and the one call that each command makes of them."""
