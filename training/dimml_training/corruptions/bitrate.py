"""Compression by a real codec, in memory."""

from __future__ import annotations

from fractions import Fraction

import av
import cv2
import numpy as np
import numpy.typing as npt

from dimml.errors import DataError

ByteArray = npt.NDArray[np.uint8]


def through_jpeg(picture: ByteArray, quality: int) -> ByteArray:
    """Compress a picture ``[H, W]`` grey or ``[H, W, 3]`` RGB as JPEG of a quality from 0 to 100, and decode it."""
    colour = picture.ndim == 3
    given = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR) if colour else picture
    _, data = cv2.imencode(".jpg", given, [cv2.IMWRITE_JPEG_QUALITY, quality])
    back = cv2.imdecode(data, cv2.IMREAD_COLOR if colour else cv2.IMREAD_GRAYSCALE)
    if back is None:
        raise DataError("OpenCV could not read a JPEG that it wrote: reinstall opencv-python-headless")
    return np.asarray(cv2.cvtColor(back, cv2.COLOR_BGR2RGB) if colour else back, dtype=np.uint8)


def through_h264(clip_THWC: ByteArray, quantiser: int) -> ByteArray:
    """Compress RGB pictures ``[T, H, W, 3]`` as H.264 of a fixed quantiser (0 to 51), and decode them; any size.

    Raises DataError where this build of PyAV has no H.264 encoder.
    """
    height, width = clip_THWC.shape[1:3]
    # 4:2:0 needs even sides.
    even = np.pad(clip_THWC, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    try:
        encoder = av.VideoCodecContext.create("libx264", "w")
    except (av.FFmpegError, ValueError) as error:
        raise DataError("low_bitrate needs PyAV with libx264: install the av wheel from PyPI") from error
    encoder.width, encoder.height, encoder.pix_fmt = even.shape[2], even.shape[1], "yuv420p"
    encoder.time_base = Fraction(1, 25)
    # One thread: the stream is the same everywhere, and starting more costs more than a small clip.
    encoder.thread_count = 1
    encoder.options = {"qp": str(quantiser), "preset": "veryfast", "tune": "zerolatency"}
    packets = []
    for index, picture in enumerate(even):
        # OpenCV's conversion, since FFmpeg's sets up a scaler for every frame: ten times as slow on small ones.
        frame = av.VideoFrame.from_ndarray(cv2.cvtColor(picture, cv2.COLOR_RGB2YUV_I420), format="yuv420p")
        frame.pts = index
        packets += encoder.encode(frame)
    packets += encoder.encode(None)
    decoder = av.VideoCodecContext.create("h264", "r")
    decoder.thread_count = 1
    decoded = [frame for packet in [*packets, None] for frame in decoder.decode(packet)]
    pictures = [cv2.cvtColor(frame.to_ndarray(), cv2.COLOR_YUV2RGB_I420) for frame in decoded]
    return np.stack(pictures)[:, :height, :width].astype(np.uint8)
