"""The servers of the e2e tier, to be broken."""

from tests.e2e.conftest import server, start

__all__ = ["server", "start"]
