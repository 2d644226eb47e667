"""Installation: `pip install -e .[cpu]` (or `[gpu]`, `[tpu]`): the extra picks the TensorFlow build."""

from setuptools import find_namespace_packages, setup

ROOMS = ["official", "configs", "dataloaders", "modeling", "losses", "tasks", "serving", "reproduction", "tools"]

setup(
    name="detector-reproduction",
    version="0.1.0",
    description="Reproduce YOLO-family detectors in TensorFlow, and prove the reproduction right before training it",
    python_requires=">=3.11",
    packages=find_namespace_packages(include=[pattern for room in ROOMS for pattern in (room, f"{room}.*")]),
    py_modules=["preflight"],
    package_data={"configs": ["**/*.yaml"]},
    install_requires=[
        "absl-py",
        "beartype",  # the run-time side of jaxtyping's checks, used by the tests' import hook
        # cloud-tpu-client brings an old googleapis stack; resolved together with this bound, protobuf stays new.
        "cloud-tpu-client",
        "google-api-core<1.32",
        "jaxtyping>=0.2.34",
        "matplotlib",
        "numpy",
        "pillow",
        "pycocotools",
        "pydantic>=2.7",
        "pyyaml",
        "rich",
        "tensorboard",
        "tensorflow-datasets",
    ],
    extras_require={
        "cpu": ["tensorflow-cpu>=2.20,<2.22"],
        "gpu": ["tensorflow[and-cuda]>=2.20,<2.22"],
        # tensorflow-tpu asks for libtpu~=0.0.14, which resolves to a release whose import aborts; 0.0.17 works.
        "tpu": ["tensorflow-tpu==2.20.0", "libtpu==0.0.17"],
        # What reproduction/record can record from, beside OpenCV, which is among the tools of development.
        "onnx": ["onnx", "onnxruntime"],
        "torch": ["torch"],
        # OpenCV 5 no longer reads Darknet's files.
        "dev": ["hypothesis", "opencv-python-headless<5", "pytest", "pytest-xdist", "ruff"],
    },
)
