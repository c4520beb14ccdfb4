"""Pictures, captions and triples: reading, checking, cropping, ordering and writing."""
