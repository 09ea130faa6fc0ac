"""Views of images: crops, flips, colours and mixtures, each keyed by picture and copy."""
