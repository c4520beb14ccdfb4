"""Names of the model files in the folder `weights`, which training/builtin writes and the nodes load."""

UNET_FILE = "gm_unet_builtin.safetensors"
VAE_FILE = "gm_vae_builtin.safetensors"
