"""Command line tools of the repository, not part of the pack: a ComfyUI to run it in, demo, converter."""
