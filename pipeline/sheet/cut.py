"""The sheet as a person states it: cut out of the picture, mirrored and turned upright.  Page in, page out.

Whole pixels are moved, never sampled again, unless four corners say that the sheet lies askew.
"""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.datatypes import ByteArray, Corrections, PageImage, RectifiedPage
from pipeline.sheet.paper import apply_homography

Homography = npt.NDArray[np.float64]


def cut_sheet(page: PageImage, corrections: Corrections) -> tuple[PageImage, Homography]:
    """Cut the sheet out of a page and turn it upright; parts that are no ECG become plain paper.

    Parameters
    ----------
    page : PageImage
    corrections : Corrections
        Those of crop, corners, mirror, turns and parts without an ECG count.

    Returns
    -------
    page : PageImage
    to_original : (3, 3)
        Its pixels -> those of the page as it came in.
    """
    pixels, hint = _blanked(page.pixels, corrections), page.px_per_mm_hint
    to_original = np.eye(3)
    if corrections.crop_px is not None:
        pixels, to_original = _cropped(pixels, corrections.crop_px)
    elif corrections.corners_px is not None:
        pixels, to_original = _flattened(pixels, np.array(corrections.corners_px, np.float32))
        hint = None
    if corrections.mirrored:
        to_original = to_original @ np.array([[-1.0, 0.0, pixels.shape[1] - 1], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
        pixels = pixels[:, ::-1]
    for _ in range(corrections.quarter_turns or 0):
        # the new pixel (x', y') shows what stood at (x, y) = (width - 1 - y', x')
        to_original = to_original @ np.array([[0.0, -1.0, pixels.shape[1] - 1], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
        pixels = np.rot90(pixels)
    if pixels is page.pixels:
        return page, to_original
    to_sheet = np.linalg.inv(to_original)
    strokes = tuple(apply_homography(to_sheet, stroke).astype(np.float64) for stroke in page.strokes)
    cut = replace(page, pixels=np.ascontiguousarray(pixels), px_per_mm_hint=hint, strokes=strokes)
    return cut, to_original


def in_original(rectified: RectifiedPage, to_original: Homography, quarter_turns: int = 0) -> RectifiedPage:
    """Return the map of a sheet that was cut out with its nodes in pixels of the page as it came in."""
    if np.array_equal(to_original, np.eye(3)):
        return rectified
    return replace(
        rectified,
        node_xy=apply_homography(to_original, rectified.node_xy.astype(np.float64)).astype(np.float32),
        homography=to_original @ rectified.homography,
        quarter_turns=(rectified.quarter_turns + quarter_turns) % 4,
    )


def _blanked(pixels: ByteArray, corrections: Corrections) -> ByteArray:
    if not corrections.not_ecg_px:
        return pixels
    paper = np.median(pixels[::8, ::8].reshape(-1, 3), axis=0)
    pixels = pixels.copy()
    for polygon in corrections.not_ecg_px:
        cv2.fillPoly(pixels, [np.round(polygon).astype(np.int32)], paper.tolist())
    return pixels


def _cropped(pixels: ByteArray, box: tuple[float, float, float, float]) -> tuple[ByteArray, Homography]:
    height, width = pixels.shape[:2]
    left, right = (int(np.clip(round(x), 0, width)) for x in (box[0], box[2]))
    top, bottom = (int(np.clip(round(y), 0, height)) for y in (box[1], box[3]))
    to_original = np.array([[1.0, 0.0, left], [0.0, 1.0, top], [0.0, 0.0, 1.0]])
    return pixels[top : max(bottom, top + 1), left : max(right, left + 1)], to_original


def _flattened(pixels: ByteArray, corners: npt.NDArray[np.float32]) -> tuple[ByteArray, Homography]:
    """Sample the quadrilateral of four corners as a rectangle whose sides are the means of its opposite sides."""
    sides = np.linalg.norm(np.roll(corners, -1, 0) - corners, axis=1)
    width, height = (max(round(float(sides[k] + sides[k + 2]) / 2) + 1, 2) for k in (0, 1))
    flat = np.array([[0, 0], [width - 1, 0], [width - 1, height - 1], [0, height - 1]], np.float32)
    to_original = cv2.getPerspectiveTransform(flat, corners)
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    warped = cv2.warpPerspective(pixels, to_original, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(warped, np.uint8), np.asarray(to_original, np.float64)
