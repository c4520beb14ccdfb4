// What a node tells as text stands on it: figures of HDR Statistics, warnings of savers and of Prepare GM VAE.
// The page itself shows no text of a node, or takes it away when the workflow has run.
import { app } from "../../scripts/app.js";
import { ComfyWidgets } from "../../scripts/widgets.js";

const NAME = "gmhdr_text";

function addText(node) {
    const { widget } = ComfyWidgets.STRING(node, NAME, ["STRING", { multiline: true }], app);
    // It is no input: neither workflows nor prompts hold it.
    widget.serialize = widget.options.serialize = false;
    widget.options.read_only = widget.element.readOnly = true;
    return widget;
}

function show(node, text) {
    const shown = node.widgets?.find((widget) => widget.name === NAME);
    if (text) (shown ?? addText(node)).value = text;
    else if (shown) node.removeWidget(shown);
    node.setDirtyCanvas?.(true, true);
}

app.registerExtension({
    name: "GM-HDR.texts",
    nodeCreated(node) {
        if (!node.comfyClass?.startsWith("GMHDR")) return;
        const executed = node.onExecuted;
        node.onExecuted = function (output) {
            executed?.apply(this, arguments);
            show(this, (output?.text ?? []).join("\n"));
        };
    },
});
