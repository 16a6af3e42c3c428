"""Canvas -> LeadLabel: the lead names on the sheet (paper, "Layout identification").

The paper segments names on the text map; this network looks at every window of the canvas itself and says which name
stands upright in it, if any.  Turned names count as none: so the names show which way up a sheet is.
"""

from __future__ import annotations

import cv2
import numpy as np

from pipeline.datatypes import NAMED_LEADS, ByteArray, FloatArray, Lead, LeadLabel
from pipeline.networks.inference import Network
from pipeline.networks.specification import LABEL
from pipeline.printing.weights import NAMES


def read_labels(canvas: ByteArray, network: Network) -> tuple[LeadLabel, ...]:
    """Find the lead names on a canvas.

    Parameters
    ----------
    canvas : (H, W, 3) uint8
        At the scale of the label network.
    network : Network
        The label network.

    Returns
    -------
    tuple of LeadLabel
        A lead may have several candidates.
    """
    half_h, half_w = LABEL.crop_px[0] // 2, LABEL.crop_px[1] // 2
    framed = np.pad(canvas, ((half_h, half_h), (half_w, half_w), (0, 0)), mode="edge")
    (logits,) = network.run(framed[None])
    probability = logits[0].softmax(0).numpy()  # window (i, j) is centred on canvas pixel (i, j) * LABEL.stride_px
    winner = probability.argmax(0)
    return tuple(label for k, lead in enumerate(NAMED_LEADS, 1) for label in _peaks(probability[k], winner == k, lead))


def _peaks(
    probability: FloatArray,
    wins: np.ndarray[tuple[int, int], np.dtype[np.bool_]],
    lead: Lead,
) -> list[LeadLabel]:
    """Blobs of windows that agree on a name: several windows see a printed name, one alone is chance."""
    _, index, stats, _ = cv2.connectedComponentsWithStats((wins & (probability > NAMES.window)).astype(np.uint8))
    labels = []
    for k in np.flatnonzero(stats[1:, cv2.CC_STAT_AREA] >= NAMES.windows) + 1:
        rows, columns = np.nonzero(index == k)
        weight = probability[rows, columns].astype(np.float64)
        scale = LABEL.cell_mm
        x_mm, y_mm = np.average(columns, weights=weight) * scale, np.average(rows, weights=weight) * scale
        n_windows = float(stats[k, cv2.CC_STAT_AREA])
        score = float(weight.max()) * min(1.0, NAMES.first_window + NAMES.each_window * n_windows)
        labels.append(LeadLabel(lead=lead, x_mm=float(x_mm), y_mm=float(y_mm), score=score))
    return labels
