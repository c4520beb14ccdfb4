"""Reading HDR video from ComfyUI's input folder as a batch of HDR pictures."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import torch
from comfy_api.latest import io

from ..gm_core.codecs.video import VideoInfo, check_is_hdr, decode_frames, describe_video
from ..gm_core.color import convert_primaries
from ..gm_core.errors import ImageReadError
from .checking import checked
from .engine.host import check_interrupted, progress_bar
from .input_files import file_input, input_fingerprint, input_path, to_bchw_array, why_unreadable
from .inputs import HDR_TOOLTIP, primaries_input, white_input
from .tensors import to_image

SUFFIXES = (".mp4", ".mov", ".m4v", ".mkv", ".webm")
BYTES_PER_PIXEL = 12


def frames_to_read(info: VideoInfo, start: int, count: int, memory_gb: float, name: str) -> int:
    """How many frames are asked for and stored; a trimmed video may show fewer.

    Raises:
        ImageReadError: none, or more than the memory limit holds.
    """
    rest = info.frames - start
    if rest < 1:
        raise ImageReadError(f"{name}: start_frame is {start}; the video has {info.frames} frames.")
    wanted = min(count, rest) if count else rest
    frame_gb = info.width * info.height * BYTES_PER_PIXEL / 1e9
    if wanted * frame_gb > memory_gb:
        raise ImageReadError(
            f"{name}: {wanted} frames of {info.width}x{info.height} take {wanted * frame_gb:.3g} GB; "
            f"memory_limit is {memory_gb:g} GB, enough for {int(memory_gb / frame_gb)}. "
            "Lower frame_count or raise the limit."
        )
    return wanted


def read_batch(path: Path, start: int, count: int, white_nits: float, convert_to: str) -> torch.Tensor:
    """[N,H,W,3] linear light, 1.0 = `white_nits`, one frame besides the batch in memory at once. N is
    `count`, or less where the video shows fewer frames.

    Raises:
        ImageReadError: the video is damaged or truncated, shows nothing from `start` on, or changes its size.
    """
    bar = progress_bar(count)
    batch = torch.empty(0)
    number = 0
    for number, picture in enumerate(islice(decode_frames(path, white_nits=white_nits, start=start), count)):
        check_interrupted()
        hdr = to_image(convert_primaries(to_bchw_array(picture.hdr), picture.primaries, convert_to))[0]
        if number == 0:
            batch = hdr.new_empty(count, *hdr.shape)
        if hdr.shape != batch.shape[1:]:
            raise ImageReadError(f"{path.name}: frame {start + number} has another size than the first.")
        batch[number] = hdr
        bar.update(1)
    return batch[: number + 1]


def range_inputs() -> list[io.Input]:
    return [
        io.Int.Input("start_frame", default=0, min=0, max=10**7, tooltip="Frames to leave out at the start."),
        io.Int.Input("frame_count", default=0, min=0, max=10**7, tooltip="How many frames; 0 = to the end."),
        io.Float.Input(
            "memory_limit",
            default=8.0,
            min=0.1,
            max=1024.0,
            step=0.1,
            tooltip="In GB. If the frames need more, the node stops before it reads them: 8 GB hold "
            "320 frames of 1920x1080 or 80 of 3840x2160.",
        ),
    ]


class LoadVideo(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="GMHDRLoadVideo",
            display_name="Load HDR Video",
            category="GM-HDR/loaders",
            description="Reads PQ (HDR10) and HLG video, HEVC or AV1, as a batch of HDR pictures.",
            inputs=[
                file_input(SUFFIXES, "video", io.UploadType.video),
                *range_inputs(),
                white_input("Luminance that becomes SDR white, 1.0. 203 is BT.2408's."),
                primaries_input("Primaries of the output. The other HDR nodes expect bt709.", "convert_to"),
            ],
            outputs=[
                io.Image.Output(display_name="hdr", tooltip=HDR_TOOLTIP + " One picture a frame."),
                io.Float.Output(display_name="fps", tooltip="Frames per second, for Save HDR Video."),
            ],
        )

    @classmethod
    @checked
    def execute(
        cls,
        video: str,
        start_frame: int,
        frame_count: int,
        memory_limit: float,
        white_nits: float,
        convert_to: str,
    ) -> io.NodeOutput:
        path = input_path(video)
        info = describe_video(path)
        check_is_hdr(info, path)
        count = frames_to_read(info, start_frame, frame_count, memory_limit, path.name)
        return io.NodeOutput(read_batch(path, start_frame, count, white_nits, convert_to), float(info.fps))

    @classmethod
    def validate_inputs(cls, video: str | None) -> bool | str:
        return why_unreadable(video)

    @classmethod
    def fingerprint_inputs(cls, video: str | None, **settings: float | str) -> str | float:
        return input_fingerprint(video, sorted(settings.items()))


NODES: list[type[io.ComfyNode]] = [LoadVideo]
