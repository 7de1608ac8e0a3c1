"""What benchmarks measure: a model, and corpora."""

from labelled_faces import faces, model  # noqa: F401
