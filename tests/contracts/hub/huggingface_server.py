"""A Hugging Face Hub on loopback, for the unmodified huggingface_hub client: repositories, LFS, Xet, tags.

Git is reduced to what the API shows of it: a commit is a hash over its parent and its tree. Xet content lies in the
`local://` store of hf_xet itself, which the client writes to and reads from directly; downloads over plain HTTP leave
through a redirect to another host name, as the real Hub's do to its CDN. `faults` makes it misbehave.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import re
import struct
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

TOKEN = "hf_token-of-the-tests"
LARGE_SUFFIXES = (".parquet", ".safetensors", ".bin")


@dataclass(frozen=True)
class Blob:
    """A file of a commit: its bytes in git, or a pointer to what LFS or Xet holds."""

    content: bytes | None
    sha256: str
    size: int

    @property
    def oid(self) -> str:
        content = self.content if self.content is not None else f"pointer {self.sha256} {self.size}".encode()
        return hashlib.sha1(b"blob %d\x00" % len(content) + content).hexdigest()


Tree = dict[str, Blob]


@dataclass
class Repository:
    private: bool = False
    card: dict[str, Any] = field(default_factory=dict)  # the metadata that a README.md begins with
    commits: dict[str, Tree] = field(default_factory=dict)
    references: dict[str, str] = field(default_factory=dict)

    def commit(self, tree: Tree, summary: str) -> str:
        parent = self.references.get("main", "")
        listing = json.dumps([parent, summary, sorted((path, blob.oid) for path, blob in tree.items())])
        oid = hashlib.sha1(listing.encode()).hexdigest()
        self.commits[oid] = tree
        self.references["main"] = oid
        return oid

    def resolve(self, reference: str) -> str:
        oid = self.references.get(reference, reference)
        if oid not in self.commits:
            raise Refused(404, "RevisionNotFound")
        return oid


@dataclass
class Fault:
    """The next `times` requests whose `METHOD /path` matches `pattern` go wrong."""

    pattern: str
    times: int = 1
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    cut_at: int | None = None  # bytes of the body that leave before the connection is dropped
    replace: bytes | None = None  # one byte that fills the body instead
    delay_seconds: float = 0.0
    drip_seconds: float = 0.0  # before each piece of the body


class Refused(Exception):
    def __init__(self, status: int, code: str = "", message: str = "") -> None:
        super().__init__(code or message)
        self.response = JSONResponse({"error": message or code}, status, {"X-Error-Code": code} if code else {})


class HubServer:
    """Runs in a thread of its own between `start` and `stop`; `url` is its address."""

    def __init__(self, folder: Path) -> None:
        self.repositories: dict[str, Repository] = {}
        self.faults: list[Fault] = []
        self.requests: list[tuple[str, dict[str, str]]] = []  # ("GET /path", headers), in order of arrival
        self.large: dict[str, bytes] = {}  # LFS objects by sha256
        self._xet = folder / "xet"
        self._out = folder / "reconstructed"
        self._out.mkdir(parents=True)
        # One worker: uvicorn's loop runs every handler to its end before the next, so commits need no lock.
        config = uvicorn.Config(self._app(), host="127.0.0.1", port=0, log_level="critical", ws="none", lifespan="off")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, name="hub-server")

    def start(self) -> None:
        self._thread.start()
        while not self._server.started:
            time.sleep(0.005)
        self.port = self._server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def stop(self) -> None:
        self._server.should_exit = True
        self._server.force_exit = True
        self._thread.join(timeout=10)

    def forget(self) -> None:
        for everything in (self.repositories, self.faults, self.requests, self.large):
            everything.clear()

    def repository(self, name: str, kinds: str = "datasets") -> Repository:
        return self.repositories.setdefault(f"{kinds}/{name}", Repository())

    def asked(self, pattern: str) -> list[dict[str, str]]:
        """Headers of the requests whose `METHOD /path` matches."""
        return [headers for line, headers in self.requests if re.search(pattern, line)]

    def _app(self) -> Any:
        api, repo = "/api/{kinds}/{org}/{name}", "{org}/{name}"
        routes = [
            ("POST", "/api/repos/create", self.create),
            ("POST", "/api/validate-yaml", self.validate_yaml),
            ("GET", f"{api}/revision/{{revision}}", self.info),
            ("GET", api, self.info),
            ("GET", f"{api}/tree/{{revision}}", self.tree),
            ("GET", f"{api}/tree/{{revision}}/{{path:path}}", self.tree),
            ("POST", f"{api}/paths-info/{{revision}}", self.paths_info),
            ("POST", f"{api}/preupload/{{revision}}", self.preupload),
            ("POST", f"{api}/commit/{{revision}}", self.commit),
            ("POST", f"{api}/tag/{{revision}}", self.tag),
            ("GET", f"{api}/xet-{{access}}-token/{{revision}}", self.xet_token),
            ("POST", f"/datasets/{repo}.git/info/lfs/objects/batch", self.lfs_batch),
            ("POST", f"/{repo}.git/info/lfs/objects/batch", self.lfs_batch),
            ("PUT", "/lfs/{sha256}", self.lfs_put),
            ("POST", "/lfs/{sha256}/verify", self.lfs_verify),
            ("GET", "/cdn/{sha256}", self.cdn),
            ("GET", f"/datasets/{repo}/resolve/{{revision}}/{{path:path}}", self.resolve),
            ("GET", f"/{repo}/resolve/{{revision}}/{{path:path}}", self.resolve),
        ]
        app = Starlette(
            routes=[Route(path, endpoint, methods=[method]) for method, path, endpoint in routes],
            exception_handlers={Refused: lambda _, refused: refused.response},
        )
        return _Recorder(app, self)

    def _repository(self, request: Request, *, write: bool = False) -> Repository:
        repository = self.repositories.get(_key(request))
        known = request.headers.get("authorization") == f"Bearer {TOKEN}"
        if repository is None or (repository.private and not known):
            raise Refused(401 if not known else 404, "RepoNotFound")
        if write and not known:
            raise Refused(401, message="Invalid credentials in Authorization header")
        return repository

    async def create(self, request: Request) -> Response:
        if request.headers.get("authorization") != f"Bearer {TOKEN}":
            raise Refused(401, message="Invalid credentials in Authorization header")
        body = await request.json()
        key = f"{body.get('type', 'model')}s/{body['organization']}/{body['name']}"
        url = f"{self.url}/{key.removeprefix('models/')}"
        if key in self.repositories:
            return JSONResponse({"url": url, "error": "You already created this repo"}, 409)
        self.repositories[key] = Repository()
        attributes = b"".join(b"*%s filter=lfs\n" % suffix.encode() for suffix in LARGE_SUFFIXES)
        self.repositories[key].commit({".gitattributes": _regular(attributes)}, "initial commit")
        return JSONResponse({"url": url})

    async def validate_yaml(self, request: Request) -> Response:
        return JSONResponse({"errors": [], "warnings": []})

    async def info(self, request: Request) -> Response:
        repository = self._repository(request)
        oid = repository.resolve(request.path_params.get("revision", "main"))
        siblings: list[dict[str, Any]] = []
        for path, blob in sorted(repository.commits[oid].items()):
            siblings.append({"rfilename": path, "size": blob.size, "blobId": blob.oid})
            if blob.content is None:
                siblings[-1]["lfs"] = {"sha256": blob.sha256, "size": blob.size, "pointerSize": 134}
        name = f"{request.path_params['org']}/{request.path_params['name']}"
        about = {"id": name, "private": repository.private, "cardData": repository.card}
        return JSONResponse({**about, "sha": oid, "siblings": siblings})

    async def tree(self, request: Request) -> Response:
        repository = self._repository(request)
        tree = repository.commits[repository.resolve(request.path_params["revision"])]
        top = request.path_params.get("path", "")
        below = {path: blob for path, blob in tree.items() if not top or path.startswith(f"{top}/")}
        if top and not below:
            raise Refused(404, "EntryNotFound")
        folders = {path[:at] for path in below for at, sign in enumerate(path) if sign == "/" and at > len(top)}
        rows = [self._tree_row(path, blob) for path, blob in sorted(below.items())]
        return JSONResponse([*map(_folder_row, sorted(folders)), *rows])

    async def paths_info(self, request: Request) -> Response:
        repository = self._repository(request)
        tree = repository.commits[repository.resolve(request.path_params["revision"])]
        form = parse_qs((await request.body()).decode())
        rows = [self._tree_row(path, tree[path]) for path in form["paths"] if path in tree]
        folders = [path for path in form["paths"] if any(file.startswith(f"{path}/") for file in tree)]
        return JSONResponse([*map(_folder_row, folders), *rows])

    def _tree_row(self, path: str, blob: Blob) -> dict[str, Any]:
        row: dict[str, Any] = {"type": "file", "path": path, "size": blob.size, "oid": blob.oid}
        if blob.content is None:
            row["lfs"] = {"oid": blob.sha256, "size": blob.size, "pointerSize": 134}
            if xet_hash := self.xet_hash(blob.sha256):
                row["xetHash"] = xet_hash
        return row

    async def preupload(self, request: Request) -> Response:
        repository = self._repository(request, write=True)
        tree = repository.commits[repository.resolve(request.path_params["revision"])]
        rows = []
        for file in (await request.json())["files"]:
            large = file["path"].endswith(LARGE_SUFFIXES) or file["size"] > 1_000_000
            row = {"path": file["path"], "uploadMode": "lfs" if large else "regular", "shouldIgnore": False}
            if blob := tree.get(file["path"]):
                row["oid"] = blob.oid if blob.content is not None else blob.sha256
            rows.append(row)
        return JSONResponse({"files": rows, "commitOid": repository.references["main"]})

    async def lfs_batch(self, request: Request) -> Response:
        self._repository(request, write=True)
        body = await request.json()
        rows = []
        for wanted in body["objects"]:
            rows.append({"oid": wanted["oid"], "size": wanted["size"]})
            if wanted["oid"] not in self.large:
                href = f"{self.url}/lfs/{wanted['oid']}"
                rows[-1]["actions"] = {"upload": {"href": href}, "verify": {"href": f"{href}/verify"}}
        return JSONResponse({"transfer": "basic", "objects": rows})

    async def lfs_put(self, request: Request) -> Response:
        content = await request.body()
        if hashlib.sha256(content).hexdigest() != request.path_params["sha256"]:
            raise Refused(400, message="sha256 mismatch")
        self.large[request.path_params["sha256"]] = content
        return Response()

    async def lfs_verify(self, request: Request) -> Response:
        stored = self.large.get(request.path_params["sha256"])
        if stored is None or len(stored) != (await request.json())["size"]:
            raise Refused(404, message="not uploaded")
        return Response()

    async def commit(self, request: Request) -> Response:
        repository = self._repository(request, write=True)
        lines = [json.loads(line) for line in (await request.body()).splitlines()]
        header = next(line["value"] for line in lines if line["key"] == "header")
        head = repository.references["main"]
        if header.get("parentCommit", head) != head:
            raise Refused(412, message="A commit has happened since")
        tree = dict(repository.commits[head])
        for line in lines:
            value = line["value"]
            match line["key"]:
                case "file":
                    tree[value["path"]] = _regular(base64.b64decode(value["content"]))
                case "lfsFile":
                    if value["oid"] not in self.large and self.xet_hash(value["oid"]) is None:
                        raise Refused(400, message=f"{value['path']} was not uploaded")
                    tree[value["path"]] = Blob(None, value["oid"], value["size"])
                case "deletedFile":
                    if tree.pop(value["path"], None) is None:
                        raise Refused(404, "EntryNotFound")
        oid = repository.commit(tree, header["summary"])
        url = f"{self.url}/{_key(request).removeprefix('models/')}/commit/{oid}"
        return JSONResponse({"success": True, "commitOid": oid, "commitUrl": url})

    async def tag(self, request: Request) -> Response:
        repository = self._repository(request, write=True)
        tag = (await request.json())["tag"]
        oid = repository.resolve(request.path_params["revision"])
        if tag in repository.references:
            raise Refused(409, message="the tag exists")
        repository.references[tag] = oid
        return Response()

    async def xet_token(self, request: Request) -> Response:
        self._repository(request, write=request.path_params["access"] == "write")
        expires = int(time.time()) + 3600
        body = {"casUrl": f"local://{self._xet}", "accessToken": "xet", "exp": expires}
        headers = {"X-Xet-Cas-Url": body["casUrl"], "X-Xet-Access-Token": "xet", "X-Xet-Token-Expiration": str(expires)}
        return JSONResponse(body, headers=headers)

    async def resolve(self, request: Request) -> Response:
        repository = self._repository(request)
        oid = repository.resolve(request.path_params["revision"])
        blob = repository.commits[oid].get(request.path_params["path"])
        if blob is None:
            raise Refused(404, "EntryNotFound")
        headers = {"X-Repo-Commit": oid, "ETag": f'"{blob.oid}"'}
        if blob.content is not None:
            return _ranged(request, blob.content, headers)
        headers |= {"X-Linked-Size": str(blob.size), "X-Linked-Etag": f'"{blob.sha256}"'}
        if xet_hash := self.xet_hash(blob.sha256):
            token = f"{self.url}/api/{_key(request)}/xet-read-token/{oid}"
            headers |= {"X-Xet-Hash": xet_hash, "Link": f'<{token}>; rel="xet-auth"'}
        headers["Location"] = f"http://localhost:{self.port}/cdn/{blob.sha256}?signature=secret&size={blob.size}"
        return Response(status_code=302, headers=headers)

    async def cdn(self, request: Request) -> Response:
        sha256 = request.path_params["sha256"]
        content = self.large.get(sha256)
        if content is None:
            content = await run_in_threadpool(self._reconstruct, sha256, int(request.query_params["size"]))
        return _ranged(request, content, {"ETag": f'"{sha256}"'})

    def _reconstruct(self, sha256: str, size: int) -> bytes:
        from hf_xet import XetFileInfo
        from huggingface_hub.utils._xet import get_xet_session

        out = self._out / sha256
        if not out.exists():
            store = {"endpoint": f"local://{self._xet}", "token": "xet", "token_expiry_unix_secs": 1 << 40}
            with get_xet_session().new_file_download_group(**store) as group:
                group.start_download_file(XetFileInfo(self.xet_hash(sha256), size), str(out))
        return out.read_bytes()

    def xet_hash(self, sha256: str) -> str | None:
        """The Xet hash of a content, as the store's shards tell it.

        A shard is a 48-byte header, then files: a 48-byte head (hash, flags, entries), that many 48-byte entries, as
        many again if flag bit 31, and if bit 30 one more that starts with the sha256; an all-ones hash ends them.
        """
        for shard in (self._xet / "xet/xorbs/shards").glob("*.mdb"):
            content = shard.read_bytes()
            at = 48
            while content[at : at + 32] != b"\xff" * 32:
                flags, entries = struct.unpack_from("<II", content, at + 32)
                end = at + 48 * (1 + entries * (2 if flags >> 31 else 1))
                if flags >> 30 & 1 and _hexadecimal(content[end : end + 32]) == sha256:
                    return _hexadecimal(content[at : at + 32])
                at = end + 48 * (flags >> 30 & 1)
        return None


def _folder_row(path: str) -> dict[str, Any]:
    return {"type": "directory", "path": path, "size": 0, "oid": hashlib.sha1(path.encode()).hexdigest()}


class _Recorder:
    """Notes every request, then lets a fault or the application answer it."""

    def __init__(self, app: Starlette, hub: HubServer) -> None:
        self.app, self.hub = app, hub

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        request = Request(scope)
        line = f"{request.method} {request.url.path}"
        self.hub.requests.append((line, dict(request.headers)))
        for fault in self.hub.faults:
            if fault.times > 0 and re.search(fault.pattern, line):
                fault.times -= 1
                await asyncio.sleep(fault.delay_seconds)
                if fault.status is not None:
                    await JSONResponse({"error": "fault"}, fault.status, fault.headers)(scope, receive, send)
                    return
                await self.app(scope, receive, _tampered(send, fault))
                return
        await self.app(scope, receive, send)


def _tampered(send: Any, fault: Fault) -> Any:
    sent, over = 0, False

    async def tampered(message: dict[str, Any]) -> None:
        nonlocal sent, over
        if over:
            return
        if message["type"] == "http.response.body":
            body = message.get("body", b"")
            await asyncio.sleep(fault.drip_seconds)
            if fault.replace is not None:
                body = (fault.replace * len(body))[: len(body)]
            if fault.cut_at is not None and sent + len(body) >= fault.cut_at:
                body, over = body[: fault.cut_at - sent], True
            sent += len(body)
            message = message | {"body": body, "more_body": message.get("more_body", False) and not over}
        await send(message)

    return tampered


def _key(request: Request) -> str:
    """`datasets/org/name` or `models/org/name`: how a repository is known here, and in the API's paths."""
    kinds = request.path_params.get("kinds") or ("datasets" if request.url.path.startswith("/datasets/") else "models")
    return f"{kinds}/{request.path_params['org']}/{request.path_params['name']}"


def _regular(content: bytes) -> Blob:
    return Blob(content, hashlib.sha256(content).hexdigest(), len(content))


def _hexadecimal(digest: bytes) -> str:
    """Xet writes a hash as four little-endian words."""
    return "".join(f"{word:016x}" for word in struct.unpack("<4Q", digest))


def _ranged(request: Request, content: bytes, headers: dict[str, str]) -> Response:
    start, end, status = 0, len(content), 200
    if match := re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("range", "")):
        start, status = int(match[1]), 206
        end = min(end, int(match[2]) + 1) if match[2] else end
        headers |= {"Content-Range": f"bytes {start}-{end - 1}/{len(content)}"}
    pieces = (content[at : min(at + 65536, end)] for at in range(start, end, 65536))
    headers |= {"Content-Length": str(end - start), "Accept-Ranges": "bytes"}
    return StreamingResponse(iter(()) if request.method == "HEAD" else pieces, status, headers)
