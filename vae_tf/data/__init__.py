"""Sources of images -> splits of uint8 pixels -> what a model is fed."""
