"""Recipe of the model that ships with the pack: data from HDR panoramas, tiny autoencoder, small GM UNet."""
