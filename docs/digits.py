"""Writes the 1,797 digits of scikit-learn, 8 x 8 pixels, as a zip of ten folders, on which docs/families trains.

``pip install scikit-learn``, then ``python docs/digits.py digits.zip``.
"""

from __future__ import annotations

import io
import sys
import zipfile

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

if __name__ == "__main__":
    digits = load_digits()
    with zipfile.ZipFile(sys.argv[1], "w") as pictures:
        for number, (image, digit) in enumerate(zip(digits.images, digits.target, strict=True)):
            file = io.BytesIO()
            # values are from 0 to 16
            Image.fromarray((image * 255 / 16).round().astype(np.uint8)).save(file, "PNG")
            pictures.writestr(f"{digit}/{number:04}.png", file.getvalue())
