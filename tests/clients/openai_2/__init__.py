"""Clients that need the second major of the openai SDK, and what fits beside them."""
