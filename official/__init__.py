"""The ground floor. Imported before TensorFlow, it decides how that starts."""

import os

# TensorFlow's faster kernels for CPUs, which it takes by itself only on processors with AVX-512.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
