"""How a model family writes prompts, calls of tools and reasoning: `chat_format` picks its own."""

from .choice import chat_format

__all__ = ["chat_format"]
