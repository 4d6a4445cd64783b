"""The formats of JSON Schema, as regular expressions of whole texts."""

from __future__ import annotations

_OCTET = "(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_IPV4 = rf"{_OCTET}(?:\.{_OCTET}){{3}}"
_H16 = "[0-9a-fA-F]{1,4}"
_IPV6 = "|".join(
    [f"(?:{_H16}:){{7}}{_H16}", "::"]
    + [f"(?:{_H16}:){{{n}}}(?::{_H16}){{1,{7 - n}}}" for n in range(1, 7)]
    + [f"(?:{_H16}:){{1,7}}:", f":(?::{_H16}){{1,7}}"]
)
_LEAP = "(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:0[48]|[2468][048]|[13579][26])00)"
_YEAR = "(?:[1-9][0-9]{3}|0[1-9][0-9]{2}|00[1-9][0-9]|000[1-9])"
_DATE = (
    f"(?:{_YEAR}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])"
    "|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|02-(?:0[1-9]|1[0-9]|2[0-8]))"
    f"|{_LEAP}-02-29)"
)
_TIME = r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,6})?"
_ZONE = "(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
_CLOCK = "T(?:[0-9]{1,3}H(?:[0-9]{1,3}M(?:[0-9]{1,3}S)?)?|[0-9]{1,3}M(?:[0-9]{1,3}S)?|[0-9]{1,3}S)"
_DAYS = "[0-9]{1,3}Y(?:[0-9]{1,3}M(?:[0-9]{1,3}D)?)?|[0-9]{1,3}M(?:[0-9]{1,3}D)?|[0-9]{1,3}D"
_ATOM = "[a-zA-Z0-9!#$%&'*+/=?^_`{|}~-]+"
_LABEL = "[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?"
_HOST = rf"{_LABEL}(?:\.{_LABEL})*"
_NAME = rf"{_LABEL}(?:\.{_LABEL}){{0,3}}\.[a-zA-Z]{{2,18}}"
_PATH = "(?:[a-zA-Z0-9._~!$&'()*+,;=:@/-]|%[0-9a-fA-F]{2})*"
_TAIL = rf"(?:\?{_PATH})?(?:#{_PATH})?"
_URI = (
    rf"(?:(?:https?|ftp|wss?)://(?:{_NAME}|localhost|{_IPV4})(?::[1-9][0-9]{{0,3}})?(?:/{_PATH})?{_TAIL}"
    rf"|(?:mailto|urn|tel|data|file|about):[a-zA-Z0-9._~!$&'()*+,;=:@/-]{_PATH})"
)
_HEX3, _HEX4, _HEX8, _HEX12 = (f"[0-9a-fA-F]{{{n}}}" for n in (3, 4, 8, 12))


def _uuid(version: int) -> str:
    return f"{_HEX8}-{_HEX4}-{version}{_HEX3}-[89abAB]{_HEX3}-{_HEX12}"


FORMATS = {
    "date": _DATE,
    "time": f"{_TIME}{_ZONE}",
    "date-time": f"{_DATE}T{_TIME}{_ZONE}",
    "duration": f"P(?:(?:{_DAYS})(?:{_CLOCK})?|{_CLOCK}|[0-9]{{1,3}}W)",
    "email": rf"{_ATOM}(?:\.{_ATOM})*@{_NAME}",
    "hostname": _HOST,
    "ipv4": _IPV4,
    "ipv6": _IPV6,
    "ipvanyaddress": f"{_IPV4}|{_IPV6}",
    "uri": _URI,
    "url": _URI,
    "uuid": f"{_HEX8}(?:-{_HEX4}){{3}}-{_HEX12}",
    **{f"uuid{version}": _uuid(version) for version in range(1, 9)},
    "byte": "(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?",
}
"""Whole texts of each enforced format: never more than the format allows, so a valid subset where
readers differ (no leap seconds, at most microseconds). Other formats are annotations, as JSON
Schema has it."""
