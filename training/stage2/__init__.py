"""Stage 2: a UNet that denoises the gain map's latent, told the SDR latent and the caption."""
