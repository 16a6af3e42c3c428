"""A picture of one line of print -> its characters: the recogniser of PP-OCRv6, as the rapidocr package ships it.

Only the model file is taken from that package; onnxruntime runs it.  None of rapidocr's own code is imported, so that
no detector ever looks at a page and no model is fetched from anywhere.
"""

from __future__ import annotations

import hashlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import onnxruntime

from pipeline.datatypes import ByteArray
from pipeline.errors import WeightsMismatch

LINE_HEIGHT_PX = 48  # what the recogniser was trained on
_SHORTEST_PX = 48
_LATIN_1 = frozenset(map(chr, range(0x20, 0x7F))) | frozenset(map(chr, range(0xA1, 0x100)))
_ALPHABET = _LATIN_1 | frozenset("\u2665\u2661\u2764")  # and the heart before a rate
_BLANK = 0  # of connectionist temporal classification


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Recogniser:
    """The recogniser ready to run, and the hash of its weights."""

    session: onnxruntime.InferenceSession
    classes: npt.NDArray[np.intp]  # (n,) classes of `_ALPHABET` in the model's output, the blank first
    characters: tuple[str, ...]  # (n,) the characters they stand for
    sha256: str
    name: str = "text"

    def read(self, line: ByteArray) -> tuple[str, tuple[float, ...]]:
        """Read a line of print (h, w, 3) RGB, upright.

        Returns
        -------
        text : str
            Characters of Latin-1, and hearts; may be empty.
        sure : tuple of float
            Probability of each character, in [0, 1].
        """
        width = max(_SHORTEST_PX, round(line.shape[1] * LINE_HEIGHT_PX / line.shape[0]))
        method = cv2.INTER_AREA if line.shape[0] > LINE_HEIGHT_PX else cv2.INTER_CUBIC
        scaled = cv2.resize(line[..., ::-1], (width, LINE_HEIGHT_PX), interpolation=method)  # trained on BGR
        x = np.ascontiguousarray((scaled.astype(np.float32) / 127.5 - 1.0).transpose(2, 0, 1)[None])
        (shares,) = self.session.run(None, {self.session.get_inputs()[0].name: x})
        allowed = np.asarray(shares)[0][:, self.classes]
        best = allowed.argmax(1)
        new = (best != _BLANK) & np.concatenate([[True], best[1:] != best[:-1]])
        text = "".join(self.characters[k] for k in best[new])
        first = len(text) - len(text.lstrip())
        sure = allowed.max(1)[new].tolist()[first : first + len(text.strip())]
        return text.strip(), tuple(sure)


def _model_file() -> Path:
    """Find the recogniser in the installed rapidocr package, without importing it."""
    spec = importlib.util.find_spec("rapidocr")
    folders = spec.submodule_search_locations if spec else None
    found = [path for folder in folders or () for path in sorted(Path(folder).glob("models/*_rec_*.onnx"))]
    if not found:
        raise WeightsMismatch("the recogniser of printed text is missing: the package rapidocr is not installed whole")
    return found[0]


def load_recogniser(*, threads: int = 1) -> Recogniser:
    """Load the recogniser.

    Parameters
    ----------
    threads : int
        Threads of one run; it always runs on the CPU.

    Raises
    ------
    WeightsMismatch
        The model is not installed, or is no recogniser that names its characters.
    """
    path = _model_file()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = False  # lines differ in length: an arena would keep the memory of the longest
    data = path.read_bytes()
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    named = session.get_modelmeta().custom_metadata_map.get("character", "").splitlines()
    if not named:
        raise WeightsMismatch(f"{path.name} does not name its characters")
    known = ["", *named, " "]  # class 0 is the blank, the last the space
    classes = [_BLANK, *(k for k, character in enumerate(known) if character in _ALPHABET and k)]
    return Recogniser(
        session=session,
        classes=np.array(classes, np.intp),
        characters=tuple(known[k] for k in classes),
        sha256=hashlib.sha256(data).hexdigest(),
    )
