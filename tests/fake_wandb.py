"""A Weights & Biases server for tests: what wandb's client sends over loopback is kept here, to be looked at.

It knows the requests of wandb 0.31: GraphQL operations, the history stream, and uploads by PUT. It proves what the
client sends, not how the real service shows it.
"""

import base64
import contextlib
import dataclasses
import gzip
import http.server
import json
import random
import re
import socket
import threading
import typing as t

Json = t.Any


@dataclasses.dataclass
class FakeRun:
    """One run as the server has it."""

    id: str
    fields: dict[str, Json] = dataclasses.field(default_factory=dict)  # displayName, groupName, jobType, ...
    config: dict[str, Json] = dataclasses.field(default_factory=dict)
    history: list[dict[str, Json]] = dataclasses.field(default_factory=list)
    summary: dict[str, Json] = dataclasses.field(default_factory=dict)
    files: dict[str, bytes] = dataclasses.field(default_factory=dict)
    ends: int = 0  # how often a client said that it had sent everything


def _free_port() -> int:
    """Not one that systems give to clients: one who keeps trying a dead server at such a port can end up connected to
    itself, and the port is taken when the server comes back.
    """
    while True:
        port = random.randrange(20_000, 30_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


class FakeWandb:
    """Serves on 127.0.0.1 between start() and stop(); it forgets nothing in between, and comes back on the same port.

    `before(name)` is called with the name of each request ahead of its answer: it may change `answers`, or cut the line
    by returning True.
    """

    entity = "penguins"
    key = "0123456789abcdef0123456789abcdef01234567"  # of the one account it knows

    def __init__(self) -> None:
        self.runs: dict[str, FakeRun] = {}
        self.artifacts: dict[str, dict[str, Json]] = {}  # id -> name, type, state, manifest, files {path: bytes}
        self.answers: t.Literal["all", "all but history", "unavailable", "nothing"] = "all"
        self.before: t.Callable[[str], bool | None] = lambda name: None
        self.requests: list[str] = []
        self.released = threading.Event()  # ends the handlers that answer nothing
        self.lock = threading.Lock()
        self.port = _free_port()
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        fake = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *args: t.Any) -> None:
                pass

            def do_GET(self) -> None:
                fake.serve(self)

            do_POST = do_GET  # noqa: N815
            do_PUT = do_GET  # noqa: N815

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: t.Any, client_address: t.Any) -> None:
                pass  # clients are killed in mid-request here

        self.released.clear()
        self.server = Server(("127.0.0.1", self.port), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()

    def stop(self) -> None:
        self.released.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def serve(self, request: http.server.BaseHTTPRequestHandler) -> None:
        body = _read(request)
        graphql = json.loads(body) if request.path == "/graphql" else {}
        name = _operation(graphql["query"]) if graphql else request.path
        self.requests.append(name)
        if self.before(name) or self.released.is_set():
            request.close_connection = True
            return
        if self.answers == "nothing":
            self.released.wait()
            request.close_connection = True
            return
        status: int
        answer: Json
        authorised = (
            request.headers.get("Authorization") == "Basic " + base64.b64encode(f"api:{self.key}".encode()).decode()
        )
        if self.answers == "unavailable":
            status, answer = 503, {"error": "unavailable"}
        elif self.answers == "all but history" and name.endswith("file_stream"):
            status, answer = 403, {"error": "forbidden"}
        elif request.command != "GET" and not request.path.startswith("/upload/") and not authorised:
            status, answer = 401, {"error": "unauthorised"}
        else:
            with self.lock:
                status, answer = 200, self.answer(request.path, name, graphql.get("variables") or {}, body)
        reply = json.dumps(answer).encode()
        request.send_response(status)
        request.send_header("Content-Type", "application/json")
        request.send_header("Content-Length", str(len(reply)))
        request.end_headers()
        request.wfile.write(reply)

    def answer(self, path: str, name: str, variables: dict[str, Json], body: bytes) -> Json:
        if stream := re.fullmatch(r"/files/[^/]+/[^/]+/([^/]+)/file_stream", path):
            return self.take_stream(self.runs[stream[1]], json.loads(body))
        if upload := re.fullmatch(r"/upload/(run|artifact|manifest)/([^/]+)/(.*)", path):
            self.take_upload(upload[1], upload[2], upload[3], body)
            return {}
        operation = getattr(self, f"graphql_{name}", None)
        if operation is None:
            return {"errors": [{"message": f"the fake server has no {name}"}]}
        return {"data": operation(variables)}

    def take_stream(self, run: FakeRun, chunk: Json) -> Json:
        files = chunk.get("files") or {}
        if history := files.get("wandb-history.jsonl"):
            rows = [json.loads(line, parse_constant=_refuse_constant) for line in history["content"]]
            assert history["offset"] <= len(run.history), "a gap in the history"
            run.history[history["offset"] : history["offset"] + len(rows)] = (
                rows  # a line sent again takes its old place
            )
        if summary := files.get("wandb-summary.json"):
            run.summary = json.loads(summary["content"][-1], parse_constant=_refuse_constant)
        run.ends += bool(chunk.get("complete"))
        return {}

    def take_upload(self, kind: str, owner: str, path: str, body: bytes) -> None:
        if kind == "run":
            self.runs[owner].files[path] = body
        elif kind == "manifest":
            self.artifacts[owner]["manifest"] = json.loads(body)
        else:
            self.artifacts[owner]["files"][path] = body

    # GraphQL operations, each from its variables to its data

    def graphql_ServerFeaturesQuery(self, _: Json) -> Json:
        return {"serverInfo": {"features": []}}

    def graphql_Viewer(self, _: Json) -> Json:
        viewer = {"id": "viewer", "entity": self.entity, "username": self.entity, "email": "", "flags": "{}"}
        return {"viewer": {**viewer, "teams": {"edges": []}}}

    def graphql_RunResumeStatus(self, variables: Json) -> Json:
        run = self.runs.get(variables["name"])
        bucket: Json = run and {
            "id": run.id,
            "name": run.id,
            "displayName": run.fields.get("displayName"),
            "summaryMetrics": json.dumps(run.summary),
            "config": json.dumps(run.config),
            "historyLineCount": len(run.history),
            "historyTail": json.dumps([json.dumps(row) for row in run.history[-1:]]),
            "eventsLineCount": 0,
            "eventsTail": "[]",
            "logLineCount": 0,
            "tags": [],
            "notes": None,
            "wandbConfig": json.dumps({"t": run.config["_wandb"]["value"]["t"]}),
        }
        return {
            "model": {
                "id": "m",
                "name": variables["project"],
                "entity": {"id": "e", "name": self.entity},
                "bucket": bucket,
            }
        }

    def graphql_GetDefaultEntity(self, _: Json) -> Json:
        return {"viewer": {"id": "viewer", "entity": self.entity}}

    def graphql_Run(self, variables: Json) -> Json:
        run = self.runs.get(variables["name"])
        found: Json = run and {
            "id": run.id,
            "name": run.id,
            "projectId": "1",
            "state": "finished",
            "config": json.dumps(run.config),
            "summaryMetrics": json.dumps(run.summary),
            "systemMetrics": "{}",
            "historyLineCount": len(run.history),
            "user": {"name": self.entity, "username": self.entity},
        }
        return {"project": {"run": found}}

    def graphql_UpsertBucket(self, variables: Json) -> Json:
        inserted = variables["name"] not in self.runs
        run = self.runs.setdefault(variables["name"], FakeRun(variables["name"]))
        run.fields |= {key: value for key, value in variables.items() if value is not None and key != "config"}
        run.config = json.loads(variables.get("config") or "null") or run.config
        project = {"id": "p", "name": variables["project"], "entity": {"id": "e", "name": self.entity}}
        bucket: dict[str, Json] = {
            "id": run.id,
            "name": run.id,
            "displayName": run.fields.get("displayName"),
            "project": project,
        }
        bucket |= {"config": json.dumps(run.config), "sweepName": None, "historyLineCount": len(run.history)}
        return {"upsertBucket": {"bucket": bucket, "inserted": inserted}}

    def graphql_CreateRunFiles(self, variables: Json) -> Json:
        files = [{"name": f, "uploadUrl": f"{self.url}/upload/run/{variables['run']}/{f}"} for f in variables["files"]]
        return {"createRunFiles": {"runID": variables["run"], "uploadHeaders": [], "files": files}}

    def graphql_CreateArtifact(self, variables: Json) -> Json:
        given = variables["input"]
        identity = f"artifact{len(self.artifacts)}"
        self.artifacts[identity] = {
            "run": given.get("runName"),
            "name": given["artifactCollectionName"]
            if "artifactCollectionName" in given
            else given["artifactCollectionNames"][0],
            "type": given["artifactTypeName"],
            "state": "PENDING",
            "files": {},
        }
        return {
            "createArtifact": {
                "artifact": {"id": identity, "state": "PENDING", "artifactSequence": {"latestArtifact": None}}
            }
        }

    def graphql_CreateArtifactManifest(self, variables: Json) -> Json:
        identity = variables["artifactID"]
        file = {
            "id": f"{identity}-manifest",
            "uploadUrl": f"{self.url}/upload/manifest/{identity}/m",
            "uploadHeaders": [],
        }
        return {"createArtifactManifest": {"artifactManifest": {"id": f"{identity}-manifest", "file": file}}}

    def graphql_CreateArtifactFiles(self, variables: Json) -> Json:
        edges = []
        for file in variables["input"]["artifactFiles"]:
            identity = file["artifactID"]
            url = f"{self.url}/upload/artifact/{identity}/{file['name']}"
            node = {"storagePath": file["name"], "uploadUrl": url, "uploadHeaders": [], "artifact": {"id": identity}}
            edges.append({"node": node | {"uploadMultipartUrls": None}})
        return {"createArtifactFiles": {"files": {"edges": edges}}}

    def graphql_CommitArtifact(self, variables: Json) -> Json:
        self.artifacts[variables["artifactID"]]["state"] = "COMMITTED"
        return {"commitArtifact": {"artifact": {"id": variables["artifactID"], "digest": "digest"}}}

    def graphql_ArtifactByID(self, variables: Json) -> Json:
        artifact = self.artifacts[variables["id"]]
        project = {"id": "p", "internalId": "1", "name": "project", "entity": {"id": "e", "name": self.entity}}
        sequence = {"id": "s", "name": artifact["name"], "project": project, "__typename": "ArtifactSequence"}
        return {
            "artifact": {
                "__typename": "Artifact",
                "id": variables["id"],
                "artifactSequence": sequence,
                "versionIndex": 0,
                "artifactType": {"name": artifact["type"]},
                "description": None,
                "metadata": "{}",
                "ttlDurationSeconds": -2,
                "ttlIsInherited": True,
                "tags": [],
                "historyStep": None,
                "state": artifact["state"],
                "size": 0,
                "digest": "digest",
                "commitHash": "commit",
                "fileCount": 1,
                "createdAt": "2020-01-01T00:00:00",
                "updatedAt": None,
                "aliases": [],
            }
        }


def _operation(query: str) -> str:
    found = re.search(r"\b(?:query|mutation)\s+(\w+)", query)
    return found[1] if found else "unnamed"


def _read(request: http.server.BaseHTTPRequestHandler) -> bytes:
    if request.headers.get("Transfer-Encoding") == "chunked":
        body = b""
        while size := int(request.rfile.readline(), 16):
            body += request.rfile.read(size)
            request.rfile.readline()
        request.rfile.readline()
    else:
        body = request.rfile.read(int(request.headers.get("Content-Length", 0)))
    return gzip.decompress(body) if request.headers.get("Content-Encoding") == "gzip" else body


def _refuse_constant(constant: str) -> t.NoReturn:
    raise AssertionError(f"{constant} is not JSON")
