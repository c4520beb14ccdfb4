"""Headless trainers for gain-map HDR models: the paper's two stages and everything between them."""
