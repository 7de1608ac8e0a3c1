"""transformers' common tests, of which its wheel has none: out of its source distribution, made importable."""

import importlib.metadata
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from types import ModuleType

VERSION = importlib.metadata.version("transformers")
PACKAGE = "transformers_tests"
MARKERS = ("accelerate_tests", "flash_attn_3_test", "flash_attn_4_test", "flash_attn_test", "torch_compile_test")
# Modules that the common tests import and the distribution lacks, with what they take from them.
ABSENT = {
    f"{PACKAGE}.exporters": {},
    f"{PACKAGE}.exporters.test_export": {"ExportTesterMixin": type("ExportTesterMixin", (), {})},
    f"{PACKAGE}.generation": {},
    f"{PACKAGE}.generation.test_utils": {"GenerationTesterMixin": type("GenerationTesterMixin", (), {})},
    f"{PACKAGE}.utils": {},
    f"{PACKAGE}.utils.test_configuration_utils": {"config_common_kwargs": {}},
    "fetch_hub_objects_for_ci": {"url_to_local_path": lambda url: url},
}


def find_source() -> Path | None:
    """The folder of transformers' source distribution: `TRANSFORMERS_SOURCE`, or downloaded once into a cache.

    Returns:
        None where it is neither there nor to be had.
    """
    if "TRANSFORMERS_SOURCE" in os.environ:
        return Path(os.environ["TRANSFORMERS_SOURCE"])
    cache = Path(tempfile.gettempdir()) / f"transformers-source-{os.getuid()}"
    source = cache / f"transformers-{VERSION}"
    if not (source / "tests").exists():
        options = ["--no-deps", "--no-binary", ":all:", "--no-build-isolation", "--quiet", "--dest", str(cache)]
        done = subprocess.run([sys.executable, "-m", "pip", "download", *options, f"transformers=={VERSION}"])
        if done.returncode:
            return None
        with tarfile.open(cache / f"transformers-{VERSION}.tar.gz") as archive:
            archive.extractall(cache, filter="data")
    return source


def make_importable(source: Path):
    """Let `import transformers_tests.test_modeling_common` find the tests of a source distribution."""
    (source / "tests" / "__init__.py").touch()  # The configuration tests look for it.
    package = ModuleType(PACKAGE)
    package.__path__ = [str(source / "tests")]
    sys.modules[PACKAGE] = package
    for name, content in ABSENT.items():
        module = ModuleType(name)
        module.__dict__.update(content, __path__=[])
        sys.modules[name] = module
