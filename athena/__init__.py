"""Athena: the public web, refined into training data that anyone can verify."""

__version__ = "0.1.0"
