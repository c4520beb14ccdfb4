"""Reading a gain map back from a picture file, with all its bits."""

from __future__ import annotations

from comfy_api.latest import io

from ..gm_core.codecs.files import read_image
from ..gm_core.errors import ImageReadError
from ..gm_core.model_info import QMAX_KEY, GainMapModelInfo
from .checking import checked
from .gain_map_pictures import ENCODINGS, picture_coding
from .input_files import file_input, input_fingerprint, input_path, to_bchw_array, why_unreadable
from .inputs import GAIN_MAP_TOOLTIP, qmax_input
from .tensors import to_image

FROM_FILE = "as in the file"
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


class LoadGainMap(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="GMHDRLoadGainMap",
            display_name="Load Gain Map",
            category="GM-HDR/loaders",
            description="Reads a gain map saved as a picture, 8 or 16 bit, in any coding.",
            inputs=[
                file_input(SUFFIXES),
                io.Combo.Input(
                    "encoding",
                    options=[FROM_FILE, *ENCODINGS],
                    default=FROM_FILE,
                    tooltip="How gain is stored. Files of Save Gain Map say it themselves; others are "
                    "linear, as in the paper, or log2 from no gain to 1 + qmax.",
                ),
                qmax_input("Used if the file does not say it; files of Save Gain Map do."),
            ],
            outputs=[
                io.Image.Output(display_name="gain_map", tooltip=GAIN_MAP_TOOLTIP),
                io.Float.Output(display_name="qmax", tooltip="What the file says, or else the qmax above."),
            ],
        )

    @classmethod
    @checked
    def execute(cls, image: str, encoding: str, qmax: float) -> io.NodeOutput:
        path = input_path(image)
        picture = read_image(path)
        if picture.sdr is None:
            raise ImageReadError(f"{path.name}: an HDR picture, not a gain map. Use Load HDR Image.")
        info = GainMapModelInfo.from_metadata({QMAX_KEY: str(qmax), **picture.metadata})
        coding = info.coding if encoding == FROM_FILE else picture_coding(encoding, info.spec)
        coded = to_bchw_array(picture.sdr)
        return io.NodeOutput(to_image(coding.to_gain_map(coded, spec=info.spec)), info.spec.qmax)

    @classmethod
    def validate_inputs(cls, image: str | None) -> bool | str:
        return why_unreadable(image)

    @classmethod
    def fingerprint_inputs(cls, image: str | None, encoding: str, qmax: float) -> str | float:
        return input_fingerprint(image, encoding, qmax)


NODES: list[type[io.ComfyNode]] = [LoadGainMap]
