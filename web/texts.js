// What a node tells as text stands on it: figures of HDR Statistics, warnings of savers and of Prepare GM VAE.
// The page itself shows no text of a node, or takes it away when the workflow has run.
import { app } from "../../scripts/app.js";

const NAME = "gmhdr_text";
// More rows are scrolled.
const MOST_ROWS = 16;

function addText(node) {
    const { widget } = app.widgets.STRING(node, NAME, ["STRING", { multiline: true }], app);
    // It is no input: neither workflows nor prompts hold it.
    widget.serialize = widget.options.serialize = false;
    widget.options.read_only = widget.element.readOnly = true;
    widget.label = "result";
    // Nodes drawn on the canvas ask for its height in pixels, those drawn as HTML for its rows.
    widget.options.getMinHeight = () => 11 * rows(widget.value, node.size[0] - 30) + 24;
    return widget;
}

/** How many rows of small print, 6 pixels a character, a text takes. */
function rows(text, width) {
    const columns = Math.max(1, Math.floor(width / 6));
    const wrapped = text.split("\n").map((line) => Math.ceil(line.length / columns) || 1);
    return Math.min(MOST_ROWS, wrapped.reduce((sum, count) => sum + count));
}

function show(node, text) {
    const shown = node.widgets?.find((widget) => widget.name === NAME);
    if (text) {
        const widget = shown ?? addText(node);
        widget.value = text;
        widget.options.rows = rows(text, node.size[0] - 80);
    } else if (shown) node.removeWidget(shown);
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
