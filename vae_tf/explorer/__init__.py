"""A page on which a person walks through the latent space of a model, trained
here or served anywhere."""
