"""The servers of the e2e tier, to be broken."""

from tests.e2e.conftest import start

__all__ = ["start"]
