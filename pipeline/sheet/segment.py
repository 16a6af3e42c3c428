"""PageImage -> SegmentationMap: which pixels are grid, trace and print (paper, "Segmentation")."""

from __future__ import annotations

import cv2
import numpy as np

from pipeline.datatypes import PageImage, SegmentationMap
from pipeline.networks.inference import Network
from pipeline.networks.specification import PAGE


def working_scale(
    page: PageImage, *, px_per_mm: float = PAGE.px_per_mm, longest: int = 1600, shortest: int = 1200
) -> float:
    """Return map pixels per page pixel: `px_per_mm` where the file states its resolution, else a usual page size.

    The network was trained at 2.8 to 8 px/mm, a sheet of 250..300 mm spans 1200..1600 pixels at 5.
    """
    side: int = max(page.pixels.shape[:2])
    if page.px_per_mm_hint is not None:
        return float(min(px_per_mm / page.px_per_mm_hint, 2 * longest / side))
    return min(longest / side, max(1.0, shortest / side))


def segment(page: PageImage, network: Network) -> SegmentationMap:
    """Run the page network at its working scale.

    Parameters
    ----------
    page : PageImage
    network : Network
        The page network.

    Returns
    -------
    SegmentationMap
        Probabilities (h, w) float32; background is what the three leave.
    """
    scale = working_scale(page)
    h, w = (max(64, round(side * scale)) for side in page.pixels.shape[:2])
    small = cv2.resize(page.pixels, (w, h), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    (logits,) = network.run(np.asarray(small, np.uint8)[None])
    shares = logits[0, :, :h, :w].softmax(0).numpy()
    grid, trace, text = (np.ascontiguousarray(shares[k], np.float32) for k in (1, 2, 3))
    return SegmentationMap(grid=grid, trace=trace, text=text, scale=scale)
