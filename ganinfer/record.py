"""What is read from a file: nothing unknown in it, nothing converted, nothing changed."""

from pydantic import BaseModel, ConfigDict


class Record(BaseModel):
    """A part of a JSON file, checked as it is read."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
