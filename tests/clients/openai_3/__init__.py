"""Clients that work with the third major of the openai SDK."""
