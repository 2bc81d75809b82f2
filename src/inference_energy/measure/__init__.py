"""Measuring: the only room that imports engines and meters, and only inside functions."""
