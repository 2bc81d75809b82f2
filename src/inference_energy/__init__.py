"""Measure, aggregate, analyse and report the energy of LLM inference."""

__version__ = "0.1.0"
