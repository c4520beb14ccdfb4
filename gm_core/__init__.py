"""GM-HDR core: gain maps, colour, schedules, samplers and key maps on torch and numpy alone."""
