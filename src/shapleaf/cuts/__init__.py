"""Shortening tensors, and the sizes that layers and code hold beside them."""
