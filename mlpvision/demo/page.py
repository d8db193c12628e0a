"""The page: an image to drop, and the answers. It needs the library gradio, and no network."""

from collections.abc import Callable
import os
import types
from typing import Any

from mlpvision.demo import answers as answers_lib
from mlpvision.errors import UserError, printable
from mlpvision.trained import Trained

# Names of fonts that every system has; others would come from the network.
_FONTS = dict(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
# The captions and buttons of the pictures are above these, and a small image is shown as large as others.
_CSS = """
.gradio-container {width: 100% !important; max-width: 1240px !important; margin: 0 auto}
.drawn {padding-top: 32px !important}
.drawn .top-panel {top: -31px !important}
.given img {object-fit: contain !important}
"""


def library() -> types.ModuleType:
  """gradio, which is not imported before and reports nothing to its authors. UserError if it is not installed."""
  os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
  try:
    import gradio
  except ImportError as error:
    raise UserError("demo needs a library that is not installed: pip install 'mlpvision[demo]'") from error
  return gradio


def make(trained: Trained) -> Any:
  """The page of a model, a `gradio.Blocks`; its one function is `/predict` of Gradio's API."""
  gradio, answers = library(), answers_lib.make(trained)
  with gradio.Blocks(title=f"{trained.model_name} | mlpvision", analytics_enabled=False) as page:
    gradio.Markdown(_heading(trained))
    with gradio.Row():
      picture = gradio.Image(
        label="Image",
        sources=["upload", "clipboard"],
        type="filepath",
        image_mode=None,
        height=320,
        buttons=[],
        elem_classes="given",
      )
      if answers.title == "Objects":
        found = gradio.Dataframe(headers=list(answers_lib.COLUMNS), label=answers.title, interactive=False, buttons=[])
      else:
        found = gradio.Label(label=answers.title, num_top_classes=answers_lib.TOP)
    drawn = [
      gradio.Image(
        label=caption, format="png", interactive=False, buttons=["download", "fullscreen"], elem_classes="drawn"
      )
      for caption in answers.captions
    ]
    outputs = [found, *drawn]
    # Without Gradio's own reading, which knows fewer formats and other limits than `predict`.
    picture.upload(_answering(gradio, answers.of), picture, outputs, preprocess=False, api_name="predict")
    picture.clear(lambda: [None] * len(outputs), None, outputs, api_visibility="private")
  return page


def _heading(trained):
  step = "" if trained.step is None else f", step {trained.step:,}"
  view, count = printable(str(trained.preprocessing)), len(trained.class_names)
  return f"# {trained.model_name}\n`{printable(trained.source)}`{step}. {count:,} classes. Images: {view}."


def _answering(gradio, of: Callable[[str], Any]):
  """A function of Gradio's description of an uploaded file."""

  def answer(uploaded):
    if uploaded is None:
      raise gradio.Error("There is no image", duration=None, print_exception=False)
    path = uploaded["path"]
    name = uploaded.get("orig_name") or os.path.basename(path)
    try:
      yield from of(path)
    except UserError as error:
      message = printable(str(error).replace(path, name))
      raise gradio.Error(message, duration=None, title="This image cannot be read", print_exception=False) from error

  return answer


def serve(page: Any, host: str, port: int | None) -> str:
  """Starts a server for the page and returns its address; `page.close()` ends it.

  port: None takes the first from 7860 on that is free. Raises UserError if it cannot listen there.
  """
  gradio = library()
  try:
    _, address, _ = page.launch(
      server_name=host,
      server_port=port,
      share=False,
      quiet=True,
      prevent_thread_lock=True,
      ssr_mode=False,
      pwa=False,
      mcp_server=False,
      enable_monitoring=False,
      run_history=False,
      footer_links=[],
      theme=gradio.themes.Default(**_FONTS),
      css=_CSS,
    )
  except OSError as error:
    raise UserError(f"--host={host} --port={port}: cannot listen there: {error}") from error
  return address
