"""What a model makes of images, as arrays and as pictures of them."""
