"""Checks of physical sense and named accountings, the same for any study's records."""
