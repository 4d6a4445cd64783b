"""Every supported major of the openai SDK, each in a virtual environment of its own."""
