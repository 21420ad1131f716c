"""Which installed packages lend their prose to the local crawl, and which are kept back to evaluate on.

Both lists name dependencies of Athena itself, all fixed by its lock file; one that is absent is passed over.
"""

from __future__ import annotations

CRAWLED: tuple[str, ...] = (
    "torch", "sympy", "scipy", "nltk", "pandas", "numpy", "lm-eval", "portalocker", "accelerate",
    "mpmath", "pycryptodome", "more-itertools", "joblib", "python-dateutil", "psutil", "wrapt", "packaging", "lxml",
    "zstandard", "sortedcontainers", "filelock", "babel", "absl-py", "cloudpathlib", "narwhals", "dateparser", "pytz",
)  # fmt: skip

HELD_OUT: dict[str, tuple[str, ...]] = {
    "chain": ("bittensor", "eth-keys", "eth_abi", "eth-utils", "parsimonious"),
    "databases": ("SQLAlchemy", "sqlmodel", "sqlitedict"),
    "graphs": ("networkx",),
    "hubs": ("huggingface_hub", "datasets", "fsspec"),
    "language": ("spacy", "thinc", "datatrove", "trafilatura", "sacrebleu", "regex", "jusText", "charset-normalizer"),
    "learning": ("scikit-learn", "threadpoolctl"),
    "rendering": ("Jinja2", "Pygments", "rich", "tqdm", "loguru", "tabulate", "qrcode"),
    "schemas": ("pydantic", "pydantic-settings", "typing_extensions", "attrs", "typer", "click", "opentelemetry-api"),
    "web": ("websockets", "urllib3", "anyio", "fastapi", "starlette", "aiohttp", "requests", "httpx", "httpcore",
            "h11", "yarl", "uvicorn"),
}  # fmt: skip
"""By domain of the evaluation pack."""
