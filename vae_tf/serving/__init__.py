"""A trained model as a SavedModel that TensorFlow Serving runs."""
