"""A Hub of one's own: the routes that huggingface_hub asks for, and git's branches as dicts."""

import base64
import hashlib
import itertools
import json
import re
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import unquote, urlsplit

TOKEN = "hf_owner"  # of the one who may write, and see what is private


@dataclass
class Repository:
    """Commits by their name; branches are names of commits."""

    private: bool
    commits: dict[str, dict[str, bytes]] = field(default_factory=lambda: {"0" * 40: {}})
    branches: dict[str, str] = field(default_factory=lambda: {"main": "0" * 40})

    def commit(self, branch: str, files: dict[str, bytes]) -> str:
        name = hashlib.sha1(f"{self.branches[branch]}{sorted(files)}".encode()).hexdigest()
        self.commits[name] = self.commits[self.branches[branch]] | files
        self.branches[branch] = name
        return name

    def files(self, branch: str = "main") -> dict[str, bytes]:
        return self.commits[self.branches[branch]]


class Refusal(Exception):
    def __init__(self, status: int, code: str = "", body: object = None) -> None:
        self.status, self.code, self.body = status, code, body


class HubServer:
    """Serves on a free port until closed; repositories: owner/name -> what is there."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.blobs: dict[str, bytes] = {}
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


_REPO = r"(?P<repo>[^/]+/[^/]+)"
_ROUTES = {
    rf"(GET|HEAD) (/datasets)?/{_REPO}/resolve/(?P<revision>[^/]+)/(?P<file>.+)": "resolve",
    r"POST /api/repos/create": "create",
    r"POST /api/validate-yaml": "validate",
    rf"GET /api/models/{_REPO}": "info",
    rf"GET /api/datasets/{_REPO}/revision/(?P<revision>[^/]+)": "dataset",
    rf"GET /api/datasets/{_REPO}/tree/(?P<revision>[^/]+)": "tree",
    rf"POST /api/models/{_REPO}/branch/(?P<branch>[^/]+)": "branch",
    rf"POST /api/models/{_REPO}/preupload/(?P<revision>[^/]+)": "preupload",
    rf"POST /api/models/{_REPO}/commit/(?P<revision>[^/]+)": "commit",
    rf"POST /{_REPO}\.git/info/lfs/objects/batch": "batch",
    r"PUT /blobs/(?P<oid>\w+)": "store",
}


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"

    def _serve(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        asked = f"{self.command} {urlsplit(self.path).path}"
        try:
            for pattern, name in _ROUTES.items():
                if match := re.fullmatch(pattern, asked):
                    groups = {key: unquote(value) for key, value in match.groupdict().items()}
                    return self._answer(200, getattr(self, f"_{name}")(**groups))
            raise Refusal(404)
        except Refusal as refusal:
            headers = {"X-Error-Code": refusal.code} if refusal.code else {}
            return self._answer(refusal.status, refusal.body or {}, headers)

    do_GET = do_HEAD = do_POST = do_PUT = _serve  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, status: int, content: object, headers: dict[str, str] | None = None) -> None:
        if isinstance(content, tuple):
            content, headers = content
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for key, value in {**(headers or {}), "Content-Length": str(len(data))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _is_owner(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def _found(self, repo: str, *, write: bool = False) -> Repository:
        repository = self.hub.repositories.get(repo)
        if repository is None or (repository.private and not self._is_owner()):
            raise Refusal(404 if self._is_owner() else 401, "RepoNotFound")
        if write and not self._is_owner():
            raise Refusal(403)
        return repository

    def _create(self) -> object:
        asked = json.loads(self.body)
        repo = f"{asked['organization']}/{asked['name']}"
        if not self._is_owner():
            raise Refusal(403 if self.headers.get("Authorization") else 401)
        answer = {"url": f"{self.hub.url}/{repo}"}
        if repo in self.hub.repositories:
            raise Refusal(409, body=answer)
        private = asked.get("visibility") == "private" or asked.get("private", False)
        self.hub.repositories[repo] = Repository(private)
        return answer

    def _validate(self) -> object:
        return {"errors": [], "warnings": []}

    def _info(self, repo: str) -> object:
        return {"id": repo, "private": self._found(repo).private, "tags": [], "siblings": []}

    def _commit_of(self, repo: str, revision: str) -> str:
        repository = self._found(repo)
        commit = repository.branches.get(revision, revision)
        if commit not in repository.commits:
            raise Refusal(404, "RevisionNotFound")
        return commit

    def _dataset(self, repo: str, revision: str) -> object:
        commit = self._commit_of(repo, revision)
        names = [{"rfilename": name} for name in self.hub.repositories[repo].commits[commit]]
        return {"id": repo, "sha": commit, "private": False, "tags": [], "siblings": names}

    def _tree(self, repo: str, revision: str) -> object:
        files = self.hub.repositories[repo].commits[self._commit_of(repo, revision)]
        return [
            {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
            for name, data in files.items()
        ]

    def _branch(self, repo: str, branch: str) -> object:
        branches = self._found(repo, write=True).branches
        if branch in branches:
            raise Refusal(409)
        branches[branch] = branches["main"]
        return {}

    def _preupload(self, repo: str, revision: str) -> object:
        self._found(repo, write=True)
        asked = json.loads(self.body)["files"]
        modes = [(f["path"], "regular" if f["path"].endswith(".md") else "lfs") for f in asked]
        return {
            "files": [{"path": p, "uploadMode": mode, "shouldIgnore": False} for p, mode in modes]
        }

    def _batch(self, repo: str) -> object:
        self._found(repo, write=True)
        return {
            "transfer": "basic",
            "objects": [
                {**o, "actions": {"upload": {"href": f"{self.hub.url}/blobs/{o['oid']}"}}}
                for o in json.loads(self.body)["objects"]
            ],
        }

    def _store(self, oid: str) -> object:
        assert hashlib.sha256(self.body).hexdigest() == oid
        self.hub.blobs[oid] = self.body
        return {}

    def _commit(self, repo: str, revision: str) -> object:
        repository = self._found(repo, write=True)
        files = {}
        for line in itertools.islice(self.body.splitlines(), 1, None):
            entry = json.loads(line)
            value = entry["value"]
            files[value["path"]] = (
                base64.b64decode(value["content"])
                if entry["key"] == "file"
                else self.hub.blobs[value["oid"]]
            )
        name = repository.commit(revision, files)
        return {"commitUrl": f"{self.hub.url}/{repo}/commit/{name}", "commitOid": name}

    def _resolve(self, repo: str, revision: str, file: str) -> object:
        commit = self._commit_of(repo, revision)
        files = self.hub.repositories[repo].commits[commit]
        if file not in files:
            raise Refusal(404, "EntryNotFound")
        data = files[file]
        return data, {"X-Repo-Commit": commit, "ETag": f'"{hashlib.sha256(data).hexdigest()}"'}
