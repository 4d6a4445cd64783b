"""What computes a model fastest on this machine: measured, chosen, kept, picked up."""

from .choice import Goal
from .profile import Profile, WeightsFile
from .report import Report
from .store import ProfileStore

__all__ = ["Goal", "Profile", "ProfileStore", "Report", "WeightsFile"]
