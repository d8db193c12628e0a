"""A Hub on this machine: as much of the Hugging Face Hub's protocol as downloads and uploads of small files need."""

import base64
import contextlib
import hashlib
import http.server
import json
import re
import threading

_COMMIT = "0" * 39 + "1"
_FILE = re.compile(r"/(?P<repository>[\w.-]+/[\w.-]+)/resolve/(?P<revision>[^/]+)/(?P<name>.+)")
_API = re.compile(r"/api/models/(?P<repository>[\w.-]+/[\w.-]+)/(?P<what>preupload|commit)/main")


class _Handler(http.server.BaseHTTPRequestHandler):
  protocol_version = "HTTP/1.1"

  def log_message(self, *_):
    pass

  def _reply(self, status, body=b"", **headers):
    self.send_response(status)
    for name, value in {"Content-Length": str(len(body)), **headers}.items():
      self.send_header(name.replace("_", "-"), value)
    self.end_headers()
    if self.command != "HEAD":
      self.wfile.write(body)

  def _json(self, value):
    self._reply(200, json.dumps(value).encode(), Content_Type="application/json")

  def do_HEAD(self):
    match = _FILE.fullmatch(self.path)
    files = match and self.server.repositories.get(match["repository"])
    if files is None:
      self._reply(404, X_Error_Code="RepoNotFound")
    elif match["revision"] not in ("main", _COMMIT):
      self._reply(404, X_Error_Code="RevisionNotFound")
    elif match["name"] not in files:
      self._reply(404, X_Error_Code="EntryNotFound", X_Repo_Commit=_COMMIT)
    else:
      body = files[match["name"]]
      self._reply(200, body, ETag=f'"{hashlib.sha1(body).hexdigest()}"', X_Repo_Commit=_COMMIT)

  do_GET = do_HEAD

  def do_POST(self):
    body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
    if self.headers.get("Authorization") != "Bearer hf_test":
      self._reply(401)
    elif self.path == "/api/repos/create":
      asked = json.loads(body)
      repository = f"{asked['organization']}/{asked['name']}"
      self.server.repositories.setdefault(repository, {})
      self._json({"url": f"http://{self.headers['Host']}/{repository}"})
    elif self.path == "/api/validate-yaml":
      self._json({"warnings": [], "errors": []})
    elif match := _API.fullmatch(self.path):
      if match["what"] == "preupload":
        files = [{"path": file["path"], "uploadMode": "regular"} for file in json.loads(body)["files"]]
        self._json({"files": [{**file, "shouldIgnore": False} for file in files]})
      else:
        for line in map(json.loads, body.splitlines()):
          if line["key"] == "file":
            content = base64.b64decode(line["value"]["content"])
            self.server.repositories[match["repository"]][line["value"]["path"]] = content
        self._json({"commitUrl": f"http://{self.headers['Host']}/x/y/commit/{_COMMIT}", "commitOid": _COMMIT})
    else:
      self._reply(404)


@contextlib.contextmanager
def serving():
  """({repository: {name of a file: bytes}}, address) of a running server."""
  server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
  server.repositories = {}
  threading.Thread(target=server.serve_forever, daemon=True).start()
  try:
    yield server.repositories, f"http://127.0.0.1:{server.server_port}"
  finally:
    server.shutdown()
    server.server_close()
