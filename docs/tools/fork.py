"""Writes `project.urls.Repository` of pyproject.toml wherever the old address is: python -m docs.tools.fork"""

from docs.tools import repository


def main() -> None:
  """Rewrites the files and prints their names."""
  old, new = repository.cited(), repository.url()
  for path in repository.files():
    text = path.read_text()
    changed = repository.rewrite(text, old, new)
    if changed != text:
      path.write_text(changed)
      print(path.name)


if __name__ == "__main__":
  main()
