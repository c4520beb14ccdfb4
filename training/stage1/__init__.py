"""Stage 1: a VAE learns gain maps from SDR photos alone, by having to explain them."""
