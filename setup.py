"""The part of the build that pyproject.toml cannot say: configs/ is packed as mlpvision/configs."""

import setuptools

setuptools.setup(
  packages=[*setuptools.find_namespace_packages(include=["mlpvision*"]), "mlpvision.configs"],
  package_dir={"mlpvision.configs": "configs"},
)
