// Load HDR Image takes the files it is for by its upload button and by drag and drop. The page alone takes those
// whose type the browser knows as an image, and its file chooser shows PNG, JPEG and WebP only.
import { app } from "../../scripts/app.js";

const NODE = "GMHDRLoadHDR";
const SUFFIXES = [".exr", ".hdr", ".pic", ".jpg", ".jpeg", ".png", ".avif", ".jxl"];

const isPicture = (file) => SUFFIXES.some((suffix) => file.name.toLowerCase().endsWith(suffix));

/** The file with a type that the page's own upload accepts. */
const asImage = (file) =>
    file.type.startsWith("image/") ? file : new File([file], file.name, { type: "image/x-hdr" });

function chooseFile(take) {
    const chooser = document.createElement("input");
    chooser.type = "file";
    chooser.accept = SUFFIXES.join(",");
    chooser.onchange = () => take([...chooser.files]);
    chooser.click();
}

app.registerExtension({
    name: "GM-HDR.upload",
    nodeCreated(node) {
        const button = node.comfyClass === NODE && node.widgets?.find((widget) => widget.name === "upload");
        if (!button || !node.pasteFiles) return;
        node.widgets.find((widget) => widget.name === "image").options.accept = SUFFIXES.join(",");
        const upload = (files) => node.pasteFiles(files.filter(isPicture).map(asImage));
        button.callback = () => chooseFile(upload);
        const drop = node.onDragDrop;
        node.onDragDrop = function (event) {
            const files = [...(event.dataTransfer?.files ?? [])];
            return files.some(isPicture) ? upload(files) !== false : drop?.apply(this, arguments);
        };
    },
});
