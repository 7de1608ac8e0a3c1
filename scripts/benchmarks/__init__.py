"""The benchmarks, and in `baselines` the plain ways that they compare with."""
