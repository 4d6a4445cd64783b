"""Talking to a model on a terminal."""
