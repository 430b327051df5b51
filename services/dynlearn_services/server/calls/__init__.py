"""One call each: from the bytes of a request to those of its answer."""
