"""Clients that people have, as they install them, against engines that echo."""
