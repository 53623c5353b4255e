"""From measurements to a calibration: `python -m validate fit DIR`. Needs SciPy, and all of hwmodels."""
