"""From measurements to a calibration: `kvplan validate fit DIR`. Needs SciPy, and all of hwmodels."""
