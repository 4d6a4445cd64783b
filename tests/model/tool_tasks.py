"""Small things people ask of an assistant with tools, each with the one call that does it.

The expectations of all tasks were written before any answer to them was read, and stay as they are.
"""

from __future__ import annotations

from typing import Any, NamedTuple

Made = tuple[str, dict[str, Any]]
"""A call: its tool's name and its arguments."""


class Task(NamedTuple):
    """Done by exactly one call, whose arguments include `arguments`.

    A string is to be in the call's, whatever their case and spaces.
    """

    tools: list[dict[str, Any]]
    question: str
    tool: str
    arguments: dict[str, Any]

    def is_done_by(self, calls: list[Made]) -> bool:
        if [name for name, _ in calls] != [self.tool]:
            return False
        ((_, made),) = calls
        return all(_fits(made.get(key), value) for key, value in self.arguments.items())


def _fits(made: Any, wanted: Any) -> bool:
    if isinstance(wanted, str) and isinstance(made, str):
        return _plain(wanted) in _plain(made)
    return bool(made == wanted)


def _plain(text: str) -> str:
    return text.casefold().replace(" ", "")


def _tool(name: str, description: str, required: list[str], /, **properties: Any) -> dict[str, Any]:
    parameters = {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }
    function = {"name": name, "description": description, "parameters": parameters}
    return {"type": "function", "function": function}


def _text(description: str = "") -> dict[str, Any]:
    return {"type": "string", "description": description} if description else {"type": "string"}


def _one_of(*choices: str) -> dict[str, Any]:
    return {"type": "string", "enum": list(choices)}


CITY = _text("Name of the city")
MAIL = {"to": _text("Address of the recipient"), "subject": _text(), "body": _text()}
MINUTES = {"type": "integer", "minimum": 1}
DESK = [
    _tool(
        *("get_weather", "Get the current weather of a city.", ["city"]),
        city=CITY,
        unit=_one_of("celsius", "fahrenheit"),
    ),
    _tool("send_email", "Send an email to someone.", ["to", "subject"], **MAIL),
    _tool(
        *("calculate", "Work out an arithmetic expression.", ["expression"]),
        expression=_text("For example 2 + 3"),
    ),
    _tool("set_timer", "Start a countdown timer.", ["minutes"], minutes=MINUTES),
    _tool("search_web", "Search the web.", ["query"], query=_text()),
]

PERCENT = {"type": "integer", "minimum": 0, "maximum": 100}
HOME = [
    _tool(
        *("set_light", "Switch or dim the light of a room.", ["room", "on"]),
        room=_text("Name of the room"),
        on={"type": "boolean"},
        brightness={**PERCENT, "description": "In percent"},
    ),
    _tool(
        *("set_thermostat", "Set the temperature of the heating.", ["degrees"]),
        degrees={"type": "number"},
    ),
    _tool("play_music", "Play a song, an artist or a genre.", ["query"], query=_text()),
    _tool("lock_door", "Lock a door.", ["door"], door=_one_of("front", "back", "garage")),
    _tool(
        *("get_forecast", "Get the weather forecast of a city.", ["city"]),
        city=CITY,
        day=_one_of("today", "tomorrow"),
    ),
]

CURRENCY = _text("Three-letter code of the currency")
CLOCK = _text("HH:MM, 24 hours")
PHONE = [
    _tool(
        *("add_event", "Add an event to the calendar.", ["title", "date"]),
        title=_text(),
        date=_text("YYYY-MM-DD"),
        time=CLOCK,
    ),
    _tool(
        *("convert_currency", "Convert an amount of money.", ["amount", "from", "to"]),
        **{"amount": {"type": "number"}, "from": CURRENCY, "to": CURRENCY},
    ),
    _tool(
        *("translate", "Translate a text into another language.", ["text", "language"]),
        text=_text(),
        language=_text("The language to translate to"),
    ),
    _tool(
        *("send_message", "Send a text message to a contact.", ["contact", "text"]),
        contact=_text(),
        text=_text(),
    ),
    _tool("set_alarm", "Set an alarm.", ["time"], time=CLOCK),
]


FIRST = tuple(
    Task(DESK, question, tool, arguments)
    for question, tool, arguments in (
        ("What is the weather in Paris?", "get_weather", {"city": "Paris"}),
        ("What's the weather like in Tokyo right now?", "get_weather", {"city": "Tokyo"}),
        ("Is it raining in London?", "get_weather", {"city": "London"}),
        (
            "How warm is it in Madrid, in celsius?",
            "get_weather",
            {"city": "Madrid", "unit": "celsius"},
        ),
        (
            "Send an email to bob@example.com with the subject Lunch.",
            "send_email",
            {"to": "bob@example.com", "subject": "Lunch"},
        ),
        (
            "Email anna@example.org with the subject Meeting and say I will be late.",
            "send_email",
            {"to": "anna@example.org", "subject": "Meeting"},
        ),
        (
            "Please write to carl@example.net, subject: Invoice.",
            "send_email",
            {"to": "carl@example.net", "subject": "Invoice"},
        ),
        (
            "Send a mail to dora@example.com with subject Holiday and body See you soon.",
            "send_email",
            {"to": "dora@example.com", "subject": "Holiday"},
        ),
        ("What is 12 * 7?", "calculate", {"expression": "12 * 7"}),
        ("Calculate 144 / 12.", "calculate", {"expression": "144 / 12"}),
        ("Work out 3 + 4 + 5.", "calculate", {"expression": "3 + 4 + 5"}),
        ("How much is 99 - 45?", "calculate", {"expression": "99 - 45"}),
        ("Set a timer for 10 minutes.", "set_timer", {"minutes": 10}),
        ("Start a timer of 5 minutes.", "set_timer", {"minutes": 5}),
        ("Remind me in 25 minutes with a timer.", "set_timer", {"minutes": 25}),
        ("I need a 3 minute timer for my tea.", "set_timer", {"minutes": 3}),
        (
            "Search the web for cheap flights to Rome.",
            "search_web",
            {"query": "cheap flights to Rome"},
        ),
        ("Look up the history of chess on the web.", "search_web", {"query": "chess"}),
        ("Find articles about solar panels online.", "search_web", {"query": "solar panels"}),
        ("Search the web for a pancake recipe.", "search_web", {"query": "pancake recipe"}),
    )
)

SECOND = (
    *(
        Task(HOME, question, tool, arguments)
        for question, tool, arguments in (
            ("Turn on the light in the kitchen.", "set_light", {"room": "kitchen", "on": True}),
            ("Switch off the bedroom light.", "set_light", {"room": "bedroom", "on": False}),
            (
                "Dim the living room light to 30 percent.",
                "set_light",
                {"room": "living room", "brightness": 30},
            ),
            ("Set the heating to 21 degrees.", "set_thermostat", {"degrees": 21}),
            ("Please make it 19 degrees in here.", "set_thermostat", {"degrees": 19}),
            ("Play some jazz.", "play_music", {"query": "jazz"}),
            ("I want to hear Bohemian Rhapsody.", "play_music", {"query": "Bohemian Rhapsody"}),
            ("Lock the front door.", "lock_door", {"door": "front"}),
            ("Can you lock the garage?", "lock_door", {"door": "garage"}),
            (
                "Will it rain in Berlin tomorrow?",
                "get_forecast",
                {"city": "Berlin", "day": "tomorrow"},
            ),
        )
    ),
    *(
        Task(PHONE, question, tool, arguments)
        for question, tool, arguments in (
            (
                "Add a dentist appointment on 2026-03-14 at 09:30 to my calendar.",
                "add_event",
                {"title": "dentist", "date": "2026-03-14", "time": "09:30"},
            ),
            (
                "Put the team meeting on 2026-05-02 in my calendar.",
                "add_event",
                {"title": "team meeting", "date": "2026-05-02"},
            ),
            (
                "How much is 100 USD in EUR?",
                "convert_currency",
                {"amount": 100, "from": "USD", "to": "EUR"},
            ),
            (
                "Convert 250 GBP to JPY.",
                "convert_currency",
                {"amount": 250, "from": "GBP", "to": "JPY"},
            ),
            (
                "Translate good morning into French.",
                "translate",
                {"text": "good morning", "language": "French"},
            ),
            (
                "How do you say thank you in Japanese?",
                "translate",
                {"text": "thank you", "language": "Japanese"},
            ),
            (
                "Send Anna a message that dinner is ready.",
                "send_message",
                {"contact": "Anna", "text": "dinner is ready"},
            ),
            (
                "Text Ben: I am on my way.",
                "send_message",
                {"contact": "Ben", "text": "I am on my way"},
            ),
            ("Set an alarm for 06:45.", "set_alarm", {"time": "06:45"}),
            ("Wake me up at 07:15.", "set_alarm", {"time": "07:15"}),
        )
    ),
)
