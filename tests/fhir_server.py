"""A FHIR server in memory: transactions with conditional update and create, tokens, and answers as scripted."""

from __future__ import annotations

import copy
import json
import re
import threading
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote

Json = dict[str, Any]


class Answer:
    """An answer instead of the usual one; `acts`: the transaction is carried out all the same; `cut`: half is sent."""

    def __init__(self, status: int, body: Json | bytes = b"", *, acts: bool = False, cut: bool = False, **headers: str):
        self.status, self.acts, self.cut, self.headers = status, acts, cut, headers
        self.body = body if isinstance(body, bytes) else json.dumps(body).encode()


class FhirServer:
    def __init__(self) -> None:
        self.resources: dict[str, list[Json]] = {}  # by type; each has its id
        self.script: list[Answer] = []
        self.requests: list[tuple[str, str, dict[str, str], bytes]] = []
        self.tokens: list[str] = []  # given so far; the last one is good
        self.wants_token = False
        self.statement: Json = {
            "resourceType": "CapabilityStatement",
            "fhirVersion": "4.0.1",
            "software": {"name": "Fake"},
            "rest": [{"mode": "server", "interaction": [{"code": "transaction"}]}],
        }
        server = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                data = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                headers = {name.lower(): value for name, value in self.headers.items()}
                server.requests.append((self.command, self.path, headers, data))
                answer = server.answer(self.path, headers, data)
                if answer is None:  # nothing
                    self.close_connection = True
                    return
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name.replace("_", "-"), value)
                self.send_header("Content-Length", str(len(answer.body)))
                self.end_headers()
                self.wfile.write(answer.body[: len(answer.body) // 2] if answer.cut else answer.body)

            do_GET = do_POST = answer

            def log_message(self, *_: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}/fhir"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,))
        self._thread.start()

    def close(self) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    def answer(self, path: str, headers: dict[str, str], data: bytes) -> Answer | None:
        if path == "/token":
            return self._token(data)
        if self.wants_token and headers.get("authorization") != f"Bearer {['', *self.tokens][-1]}":
            return Answer(401)
        if path == "/fhir/metadata":
            return Answer(200, self.statement)
        scripted = self.script.pop(0) if self.script else Answer(200, acts=True)
        if not scripted.acts:
            return scripted if scripted.status else None
        done = self._transaction(json.loads(data))
        if done.status != 200 or (scripted.status == 200 and not scripted.body and not scripted.cut):
            return done
        scripted.body = scripted.body or done.body
        return scripted if scripted.status else None

    def _token(self, data: bytes) -> Answer:
        if parse_qs(data.decode()).get("grant_type") != ["client_credentials"]:
            return Answer(400, {"error": "unsupported_grant_type"})
        self.tokens.append(f"token-{len(self.tokens) + 1}")
        return Answer(200, {"access_token": self.tokens[-1], "token_type": "bearer", "expires_in": 3600})

    def found(self, kind: str, search: str) -> list[Json]:
        parameter, _, token = search.partition("=")
        system, _, value = unquote(token).partition("|")
        assert parameter in ("identifier", "_tag") and value

        def tokens(resource: Json) -> list[tuple[str, str]]:
            if parameter == "_tag":
                return [(tag["system"], tag["code"]) for tag in resource.get("meta", {}).get("tag", [])]
            return [(each.get("system", ""), each["value"]) for each in resource.get("identifier", [])]

        return [each for each in self.resources.get(kind, []) if (system, value) in tokens(each)]

    def _transaction(self, bundle: Json) -> Answer:
        """All or nothing, in the order of the standard's rules as far as we need them."""
        before = copy.deepcopy(self.resources)
        ids: dict[str, str] = {}
        responses, writes = [], []
        for entry in bundle["entry"]:
            kind, search = entry["resource"]["resourceType"], ""
            method, url = entry["request"]["method"], entry["request"]["url"]
            assert url.split("?")[0].split("/")[0] == kind
            if method == "POST":
                search = entry["request"]["ifNoneExist"]
            elif "?" in url:
                search = url.partition("?")[2]
            there = self.found(kind, search) if search else [
                each for each in self.resources.get(kind, []) if f"{kind}/{each['id']}" == url
            ]  # fmt: skip
            if len(there) > 1:
                self.resources = before
                return Answer(412)
            named = url.partition("/")[2] if not search else str(uuid.uuid4())
            own = there[0]["id"] if there else named
            ids[entry["fullUrl"]] = f"{kind}/{own}"
            if not there or method == "PUT":
                writes.append((kind, own, entry["resource"]))
            responses.append(
                {"response": {"status": "200 OK" if there else "201 Created", "location": f"{kind}/{own}"}}
            )
        for kind, own, resource in writes:
            problem = self._write(kind, own, resource, ids)
            if problem:
                self.resources = before
                return Answer(400, problem)
        return Answer(200, {"resourceType": "Bundle", "type": "transaction-response", "entry": responses})

    def _write(self, kind: str, own: str, resource: Json, ids: dict[str, str]) -> Json | None:
        def replaced(match: re.Match[str]) -> str:
            if match[1].startswith("Patient?"):
                (there,) = self.found("Patient", match[1].partition("?")[2]) or [None]
                return f'"reference": "{"Patient/" + there["id"] if there else "-"}"'
            return f'"reference": "{ids[match[1]]}"'

        text = re.sub(r'"reference": "([^"]+)"', replaced, json.dumps(resource))
        for url, reference in ids.items():  # some servers replace it wherever it stands
            text = text.replace(f'"{url}"', f'"{reference}"')
        if '"reference": "-"' in text:
            return {"resourceType": "OperationOutcome", "issue": [{"severity": "error", "code": "not-found"}]}
        others = [each for each in self.resources.get(kind, []) if each["id"] != own]
        self.resources[kind] = [*others, json.loads(text) | {"id": own}]
        return None


def counts(server: FhirServer) -> dict[str, int]:
    return {kind: len(found) for kind, found in server.resources.items()}
