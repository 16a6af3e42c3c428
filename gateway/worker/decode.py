"""A DICOM file goes in; its context and its pages come out, one after the other: what a child process computes.

The child imports this module and what it needs, so it needs little.
"""

from __future__ import annotations

from collections.abc import Iterator

from gateway.dicom.images.pages import read_instance
from gateway.domain.context import StudyContext
from pipeline import PageImage
from pipeline.source.page import decode_pages


def decode_object(data: bytes) -> Iterator[StudyContext | PageImage]:
    """Decode an image object, or the document of an Encapsulated PDF object: first the context, then the pages.

    Raises
    ------
    IntakeError
        The object cannot be read.
    PageUnreadable
        Its document cannot be read.
    """
    instance = read_instance(data)
    yield instance.context
    yield from instance.pages if instance.document is None else decode_pages(instance.document)
