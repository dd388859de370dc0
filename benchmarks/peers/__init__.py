"""Other servers under the same load, each in its own virtual environment, with its best documented configuration.

A driver (`serve_NAME.py`) is what a careful user of that server would write; its versions are in `requirements/`.
"""
