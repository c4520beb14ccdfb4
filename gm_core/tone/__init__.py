"""How bright a picture's tones really were, told from what a camera's tone curve leaves behind.

`statistics.py` collects the traces, among them the evidence of `slopes.py` and `blends.py`; `net.py` reads
them and answers with the curves of `curves.py`; `highlights.py` judges what is clipped; `apply.py` makes a
gain map of it all.
"""
