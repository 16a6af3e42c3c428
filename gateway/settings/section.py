"""What every section of the settings shares: its strictness, and the types of common values."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

AeTitle = Annotated[str, Field(min_length=1, max_length=16, pattern=r"^[^\\\x00-\x1f]*[^\\\x00-\x20][^\\\x00-\x1f]*$")]
Port = Annotated[int, Field(ge=0, le=65535)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,40}$")]
CharacterSet = Literal[  # HL7 table 0211
    "ASCII",
    "8859/1",
    "8859/2",
    "8859/3",
    "8859/4",
    "8859/5",
    "8859/6",
    "8859/7",
    "8859/8",
    "8859/9",
    "8859/15",
    "ISO IR14",
    "ISO IR87",
    "ISO IR159",
    "GB 18030-2000",
    "KS X 1001",
    "BIG-5",
    "UNICODE",
    "UNICODE UTF-8",
]


class Section(BaseModel):
    """One table of the file: frozen, and a key that it does not have is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)
