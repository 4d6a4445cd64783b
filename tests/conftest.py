"""What every tier shares."""

from __future__ import annotations

import hypothesis
import pytest

hypothesis.settings.register_profile("ingle", deadline=None, max_examples=50)
hypothesis.settings.load_profile("ingle")


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"
