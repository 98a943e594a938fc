"""Running text by words, characters or subwords, and generated sequences."""
