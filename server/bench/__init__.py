"""Load generation and measurement: an HTTP client of any OpenAI-compatible server, nothing more."""
