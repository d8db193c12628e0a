"""Loading by name: the cache, downloads, and errors without a network."""

import dataclasses
import functools
import http.server
import threading

import goldens
import pytest

from mlpvision import weights
from mlpvision.weights import known


@pytest.fixture
def cache(tmp_path, monkeypatch):
  monkeypatch.setenv("MLPVISION_CACHE", str(tmp_path / "cache"))
  return tmp_path / "cache"


@pytest.fixture
def server(tmp_path):
  """(directory, URL) of a web server on this machine."""
  directory = tmp_path / "www"
  directory.mkdir()
  handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=directory)
  with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as web:
    threading.Thread(target=web.serve_forever, daemon=True).start()
    yield directory, f"http://127.0.0.1:{web.server_port}"
    web.shutdown()


def entry(url, **changes):
  mixer = known.KNOWN["mixer_b16.goog_in1k"]
  sizes = dict(patch_size=8, num_blocks=2, hidden_dim=48, tokens_mlp_dim=24, channels_mlp_dim=96)
  return dataclasses.replace(mixer, name="test", url=url, overrides=sizes, num_classes=10, **changes)


def test_downloads_once_with_progress(cache, server, monkeypatch, capsys):
  directory, url = server
  file = goldens.write(directory, "mixer_npz")
  monkeypatch.setitem(known.KNOWN, "test", entry(f"{url}/{file.name}"))
  module, _, info = weights.load("test")
  assert module.num_classes == 10
  assert info.entry.name == "test"
  assert info.preprocessing == known.KNOWN["mixer_b16.goog_in1k"].preprocessing
  assert [path.name for path in cache.iterdir()] == ["test.npz"]
  assert f"{len(goldens.write(directory, 'mixer_npz').read_bytes()) / 1000:.0f}k" in capsys.readouterr().err
  file.unlink()
  assert weights.load("test").info.path == str(cache / "test.npz")
  assert weights.load("test", num_classes=3).info.head == "new"


@pytest.mark.parametrize("fault", ["absent", "page", "refused"])
def test_a_failed_download_leaves_nothing_and_names_the_alternative(cache, server, monkeypatch, fault):
  directory, url = server
  (directory / "page.html").write_text("<html>sign in</html>")
  urls = dict(absent=f"{url}/absent.npz", page=f"{url}/page.html", refused="http://127.0.0.1:9/file.npz")
  monkeypatch.setitem(known.KNOWN, "test", entry(urls[fault]))
  with pytest.raises(weights.WeightsError, match=f"could not be downloaded(.|\n)*save it as {cache}/test.npz"):
    weights.load("test")
  assert not list(cache.iterdir())


def test_by_hand(cache):
  with pytest.raises(weights.WeightsError, match="svip-lab/AS-MLP and save it as .*asmlp_tiny.official.pth"):
    weights.load("asmlp_tiny.official")


def test_cut_connections_are_noticed(cache, monkeypatch):
  class Cut(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
      self.send_response(200)
      self.send_header("Content-Length", "1000")
      self.end_headers()
      self.wfile.write(b"x" * 100)

    def log_message(self, *args):
      pass

  with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Cut) as web:
    threading.Thread(target=web.serve_forever, daemon=True).start()
    monkeypatch.setitem(known.KNOWN, "test", entry(f"http://127.0.0.1:{web.server_port}/w.npz"))
    with pytest.raises(weights.WeightsError, match="could not be downloaded"):
      weights.load("test")
    web.shutdown()
  assert not list(cache.iterdir())
