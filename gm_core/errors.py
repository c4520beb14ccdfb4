"""The typed errors of the package. Each message names the input, what was found and the remedy."""


class GainMapError(ValueError):
    """Base of the errors that core, nodes and training raise on purpose; itself for inputs of the maths.

    Users see its message: it names the input, what is wrong with it and what to do.
    """


class ModelFileError(GainMapError):
    """A model file is not the kind of model that was asked for, or its metadata is unusable."""


class ImageReadError(GainMapError):
    """A picture file cannot be read: unknown format, truncated, or outside what is supported."""


class ImageWriteError(GainMapError):
    """A picture cannot be written: wrong shape, non-finite pixels, or outside what a format can hold."""
