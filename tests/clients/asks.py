"""What every client asks. An echo is the last turn: a user's text, or what a tool gave."""

from __future__ import annotations

import json
import os
from enum import StrEnum

from pydantic import BaseModel

BASE = os.environ["CLIENTS_BASE_URL"]
MIXED = "Hi 🦊, 跳过 naïve 👩‍🚀 e\u0301 — \u2028 end"
TOO_LONG = "x" * 6000


class Unit(StrEnum):
    KM = "km"
    MILE = "mile"


class Leg(BaseModel):
    to: str
    distance: float
    unit: Unit


class Trip(BaseModel):
    """A journey."""

    name: str
    legs: list[Leg]
    note: str | None


TRIP = Trip(name="Tour ü", legs=[Leg(to="Rome", distance=1.5, unit=Unit.KM)], note=None)
TRIP_TEXT = json.dumps(TRIP.model_dump(mode="json"), ensure_ascii=False)


def call(name: str, arguments: dict[str, object]) -> str:
    """How the model calls a tool."""
    body = json.dumps({"name": name, "arguments": arguments}, ensure_ascii=False)
    return f"<tool_call>\n{body}\n</tool_call>"


class Tools:
    """Two tools that remember how they were called."""

    def __init__(self) -> None:
        self.called: list[tuple[str, dict[str, object]]] = []

    def weather(self, city: str, days: int) -> str:
        """The weather in a city."""
        self.called.append(("weather", {"city": city, "days": days}))
        return f"Sun in {city} for {days} days ☀"

    def clock(self) -> str:
        """The time of day."""
        self.called.append(("clock", {}))
        return "It is noon"


CALLED = [("weather", {"city": "Köln", "days": 2}), ("clock", {})]
CALLS = "\n".join(call(name, arguments) for name, arguments in CALLED)
