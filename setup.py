"""The part of the build that pyproject.toml cannot say: configs/ is packed as mlpvision/configs, and the README's
pictures and links lead to the repository, because a package index has nothing else of it."""

import pathlib
import re
import tomllib

import setuptools

_ROOT = pathlib.Path(__file__).parent


def readme() -> str:
  """README.md with absolute links."""
  project = tomllib.loads((_ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
  url = project["urls"]["Repository"]
  text = (_ROOT / "README.md").read_text(encoding="utf-8")
  text = re.sub(r"(!\[[^\]]*\]\()(?!https?:)([^)]+)\)", rf"\g<1>{url}/raw/main/\g<2>)", text)
  return re.sub(r"(\]\()(?!https?:|#)([^)]+)\)", rf"\g<1>{url}/blob/main/\g<2>)", text)


setuptools.setup(
  packages=[*setuptools.find_namespace_packages(include=["mlpvision*"]), "mlpvision.configs"],
  package_dir={"mlpvision.configs": "configs"},
  long_description=readme(),
  long_description_content_type="text/markdown",
)
