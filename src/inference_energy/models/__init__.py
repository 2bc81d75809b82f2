"""Models of the logarithm of energy per output token, which several analyses share."""
