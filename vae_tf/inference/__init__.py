"""Amortized against mean-field inference: a posterior for each datapoint."""
