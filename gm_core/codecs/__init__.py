"""HDR picture files. Arrays are numpy, height x width x channel; a codec imports its library when it runs."""
