"""How bright a picture's tones really were, told from what a camera's tone curve leaves behind.

`statistics.py` collects the traces, among them the evidence of `slopes.py` and `blends.py`; `net.py` reads
them and answers with the curves of `curves.py`; `highlights.py` and `tints.py` judge what is clipped.
`reading.py` puts together what is told of a picture, `film.py` steadies it over the frames of a film, and
`apply.py` makes a gain map of it.
"""
