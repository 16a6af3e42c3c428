"""FHIR as a destination: a server gets one transaction Bundle a page, by POST to its base (FHIR R4 section 3.1.0.11).

A transaction is taken whole or not at all, and may be repeated (`gateway.fhir.bundle`): after half an answer, or none,
it is sent again.  A bearer token is read from its file for every request; a token of an OAuth2 server is asked for with
our credentials, kept until it ends, and asked for again where the FHIR server refuses it.
"""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from gateway.delivery.kind import Kind, Objects
from gateway.delivery.sample_ecg import sample_page
from gateway.delivery.steps import Step, reach, sent_test
from gateway.domain.artefact import Artefact, Role
from gateway.domain.clock import utc_now
from gateway.domain.digitized_page import DigitizedPage
from gateway.errors import DeliveryDeferred, DeliveryError, DeliveryRefused, NotReached, SettingsError
from gateway.fhir.bundle import MEDIA_TYPE, transaction
from gateway.fhir.resources import ResultStatus, report_url
from gateway.security.http import Answer, WebPeer, request, secret
from gateway.settings import FhirDestination, OAuth2Settings, TlsClientSettings
from gateway.store.tables import Delivery

_NEVER = {400, 405, 406, 410, 411, 412, 413, 414, 415, 422}
_BUSY = (429, 503)  # it takes nothing from us now
_MADE = re.compile(r"2\d\d|304")  # of an entry
_ADVICE = {
    "400": "see the elements that it names, and the server's log",
    "401": "set token_file or oauth2 to what the server knows",
    "403": "have this client allowed there to write what docs/conformance/fhir.md lists",
    "404": "is url the base of a FHIR server?  With patient = 'existing' the patient may be missing there",
    "412": "more than one resource there has an identifier that the Bundle names, or, with patient = 'existing', none",
    "413": "have its limit raised, or take documents out of the settings",
    "422": "see the elements that it names: a profile of the server wants them otherwise",
}
_TOKEN_MARGIN_S = 30.0  # a token is not used up to its very end
_ELEMENT = re.compile(r"[A-Za-z0-9_.:()\[\]-]{1,120}")  # no quotes, no slash: what is found by a value names it
_VERSIONS = ("4.0", "4.1", "4.3")  # R4, R4B


class FhirKind(Kind):
    """A FHIR server."""

    def __init__(self, destination: FhirDestination) -> None:
        super().__init__(destination)
        self._destination = destination
        self._client = FhirClient(destination)

    @property
    def withdraws(self) -> bool:
        """Whether it can be told that what it has is rejected: `gateway.results.fhir`."""
        return True

    def artefacts(self, page: DigitizedPage, objects: Objects, earlier: Sequence[Delivery]) -> Iterator[Artefact]:
        """Yield the Bundle about the page: a correction where an earlier result of it arrived."""
        corrects = any(bundle.revision != page.revision for bundle in earlier)
        status: ResultStatus = "C" if corrects else "F" if page.final else "P"
        yield Artefact(
            page_number=page.page_number,
            role=Role.MESSAGE,
            data=transaction(page, self._destination, status),
            variant=self.name,
            revision=page.revision,
            final=page.final,
            identifier=report_url(page.job_id, page.page_number),
            result_status=status,
            ending="fhir.json",
        )

    def send(self, path: Path, delivery: Delivery) -> str:
        """Send the Bundle and return the HTTP status."""
        return self._client.send(path.read_bytes())

    def check(self) -> Iterator[Step]:
        """Yield the steps up to the server's CapabilityStatement, and whether it takes transactions."""
        destination = self._destination
        tls = (destination.tls or TlsClientSettings()) if destination.secure else None
        for step in reach(destination.host, destination.port, destination.timeout_s, tls):
            yield step
            if not step.ok:
                return
        try:
            if destination.oauth2:
                self._client.token()
                yield Step(name="token", ok=True, found=f"{destination.oauth2.token_url} gives us a token")
            statement = self._client.capabilities()
        except DeliveryError as error:
            name = "metadata" if error.response or not destination.oauth2 else "token"
            yield Step(name=name, ok=False, found=str(error), advice=_advice(error))
            return
        yield from _capabilities(statement)

    def send_test(self) -> Iterator[Step]:
        """Yield the steps of `check`, then send the test ECG; the server makes its patient."""
        return sent_test(self.check(), "transaction", self._send_test, advice=_ADVICE)

    def _send_test(self) -> str:
        patient = "identifier" if self._destination.patient == "identifier" else "create"
        destination = self._destination.model_copy(update={"patient": patient})
        return self._client.send(transaction(sample_page(self.name), destination, "P"))


class FhirClient:
    """Speaks to one server; keeps its token, and is used by one thread at a time."""

    def __init__(self, destination: FhirDestination) -> None:
        self._destination = destination
        self._peer = WebPeer(
            name=destination.name, url=destination.url, timeout_s=destination.timeout_s, tls=destination.tls
        )
        self._token, self._token_ends = "", 0.0

    def send(self, bundle: bytes) -> str:
        """Have a transaction carried out and return the HTTP status.

        Raises
        ------
        DeliveryDeferred
            Not now, or whether it was carried out is not known; it can be sent again.
        DeliveryRefused
            Never as it stands; the reason names the elements that the server does not take.
        """
        answer = self._authorized("", bundle)
        if answer.status not in (200, 201):
            raise self._failure(answer.status, answer, bundle)
        entries = self._json(answer).get("entry")
        entries = entries if isinstance(entries, list) else []
        statuses = [str(_inside(entry, "response").get("status", "")) for entry in entries]
        failed = next((status for status in statuses if not _MADE.match(status)), None)
        if failed is not None:
            code = int(failed[:3]) if re.match(r"\d{3}", failed) else 500
            raise self._failure(code, answer, bundle)
        if len(statuses) != len(json.loads(bundle)["entry"]):
            raise DeliveryDeferred(f"{self._peer.name}: HTTP status {answer.status}, and an answer that is not whole")
        return str(answer.status)

    def capabilities(self) -> dict[str, Any]:
        """Return the server's CapabilityStatement; raise as `send` does where it gives none."""
        answer = self._authorized("/metadata")
        if answer.status != 200:
            raise self._failure(answer.status, answer)
        statement = self._json(answer)
        if statement.get("resourceType") != "CapabilityStatement":
            raise DeliveryDeferred(f"{self._peer.name}: the answer is no CapabilityStatement", response="200")
        return statement

    def token(self) -> str:
        """Return a token of the OAuth2 server: the one at hand, or a new one."""
        oauth2 = self._destination.oauth2
        assert oauth2 is not None
        if not self._token or time.monotonic() >= self._token_ends:
            answer = request(self._token_peer(oauth2), "", *self._credentials(oauth2))
            given = self._json(answer) if answer.status == 200 else {}
            if not isinstance(token := given.get("access_token"), str) or not token:
                why = _error_code(answer)
                raise NotReached(f"{self._peer.name}: the token server answers HTTP status {answer.status}{why}")
            lasts_s = given.get("expires_in")
            self._token = token
            self._token_ends = time.monotonic() + (lasts_s if isinstance(lasts_s, int) else 60.0) - _TOKEN_MARGIN_S
        return self._token

    def _token_peer(self, oauth2: OAuth2Settings) -> WebPeer:
        destination = self._destination
        tls = destination.tls
        if tls is not None and urlsplit(oauth2.token_url).hostname != destination.host:
            tls = tls.model_copy(update={"server_name": None})  # the name is that of the FHIR server
        return WebPeer(name=destination.name, url=oauth2.token_url, timeout_s=destination.timeout_s, tls=tls)

    def _credentials(self, oauth2: OAuth2Settings) -> tuple[dict[str, str], bytes]:
        """Return header and body of a request for a token; id and secret are percent-encoded (RFC 6749 2.3.1)."""
        pair = ":".join(quote(part, safe="") for part in (oauth2.client_id, self._secret(oauth2.client_secret_file)))
        headers = {
            "Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}",
            "Content-Type": "application/x-www-form-urlencoded",
            "Accept": "application/json",
        }
        form = {"grant_type": "client_credentials"} | ({"scope": oauth2.scope} if oauth2.scope else {})
        return headers, urlencode(form).encode()

    def _authorized(self, path: str, content: bytes | None = None) -> Answer:
        """Make a request as the client that we are; with a new token where the server does not take ours any more."""
        had = self._token
        answer = self._request(path, content)
        if answer.status == 401 and had and self._token == had:
            self._token = ""
            answer = self._request(path, content)
        return answer

    def _request(self, path: str, content: bytes | None) -> Answer:
        headers = {"Accept": MEDIA_TYPE}
        if content is not None:
            headers |= {"Content-Type": MEDIA_TYPE, "Prefer": "return=minimal"}
        if self._destination.token_file is not None:
            headers["Authorization"] = f"Bearer {self._secret(self._destination.token_file)}"
        elif self._destination.oauth2 is not None:
            headers["Authorization"] = f"Bearer {self.token()}"
        return request(self._peer, path, headers, content)

    def _secret(self, path: Path) -> str:
        try:
            return secret(path)
        except SettingsError as error:
            raise NotReached(f"{self._peer.name}: {error}") from error

    def _json(self, answer: Answer) -> dict[str, Any]:
        try:
            found = json.loads(answer.body)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise DeliveryDeferred(
                f"{self._peer.name}: HTTP status {answer.status}, and an answer that is none",
                response=str(answer.status),
            )
        return found

    def _failure(self, status: int, answer: Answer, bundle: bytes = b"") -> DeliveryError:
        """Return what an answer means, with the elements that its OperationOutcome names."""
        named = "; ".join(_issues(answer.body, bundle))
        message = f"{self._peer.name}: HTTP status {status}" + (f": {named}" if named else "")
        if status in _NEVER:
            return DeliveryRefused(message, response=str(status))
        kind = NotReached if status in _BUSY else DeliveryDeferred
        return kind(message, response=str(status), wait_s=_retry_after_s(answer.headers))


def _inside(found: object, key: str) -> dict[str, Any]:
    inner = found.get(key) if isinstance(found, dict) else None
    return inner if isinstance(inner, dict) else {}


def _error_code(answer: Answer) -> str:
    """Return the error code of a token server (RFC 6749 section 5.2), if it gives one."""
    match = re.search(rb'"error"\s*:\s*"([a-z_]{1,40})"', answer.body)
    return f", {match[1].decode()}" if match else ""


def _retry_after_s(headers: Mapping[str, str]) -> float:
    """Return how long the server wants to be left in peace (RFC 9110 section 10.2.3), in s; 0 where it does not say."""
    stated = headers.get("Retry-After", "").strip()
    if stated.isdecimal():
        return float(stated[:9])
    try:
        at = parsedate_to_datetime(stated)
    except ValueError:
        return 0.0
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return max(0.0, (at - utc_now().astimezone(UTC)).total_seconds())


def _issues(body: bytes, bundle: bytes) -> Iterator[str]:
    """Yield what the OperationOutcomes of an answer find wrong: code and element; no text, which may name a patient.

    An element of an entry is named by the resource that the entry has.
    """
    try:
        found = json.loads(body)
    except ValueError:
        return
    outcomes = [found, *(_inside(_inside(entry, "response"), "outcome") for entry in _list(found, "entry"))]
    types = [entry["resource"]["resourceType"] for entry in json.loads(bundle)["entry"]] if bundle else []
    issues = [issue for outcome in outcomes for issue in _list(outcome, "issue") if isinstance(issue, dict)]
    for issue in issues[:5]:
        if issue.get("severity") not in ("fatal", "error"):
            continue
        code = str(issue.get("code", ""))
        places = [str(place) for key in ("expression", "location") for place in _list(issue, key)]
        elements = [_element(place, types) for place in places if _ELEMENT.fullmatch(place)]
        words = code if re.fullmatch("[a-z-]{1,40}", code) else "error"
        yield f"{words} at {', '.join(dict.fromkeys(elements))}" if elements else words


def _element(place: str, types: Sequence[str]) -> str:
    """Return an element's path; one that begins at an entry of the Bundle begins at its resource instead."""
    match = re.match(r"Bundle\.entry\[(\d{1,3})\]\.resource(?:\.ofType\(\w+\)|/\*\w+\*/)?", place)
    if match and int(match[1]) < len(types):
        return types[int(match[1])] + place[match.end() :]
    return place


def _list(found: object, key: str) -> list[Any]:
    inner = found.get(key) if isinstance(found, dict) else None
    return inner if isinstance(inner, list) else []


def _advice(error: DeliveryError) -> str:
    return _ADVICE.get(error.response, "is url the base of a FHIR server?  See its log, and that of the token server")


def _capabilities(statement: Mapping[str, Any]) -> Iterator[Step]:
    """Yield which version the server speaks, and whether it takes transactions."""
    version = str(statement.get("fhirVersion", ""))
    known = version.startswith(_VERSIONS)
    name = re.sub(r"[^\w .()-]", "", str(_inside(statement, "software").get("name", "")))[:60] or "the server"
    advice = "" if known else "url must be the server's base of FHIR R4"
    yield Step(name="metadata", ok=known, found=f"{name} speaks FHIR {version[:20] or 'of no version'}", advice=advice)
    if not known:
        return
    interactions = [
        each.get("code")
        for rest in _list(statement, "rest")
        for each in _list(rest, "interaction")
        if isinstance(each, dict)
    ]
    takes = "transaction" in interactions
    yield Step(
        name="transaction",
        ok=takes,
        found="the server takes transactions" if takes else "the server does not say that it takes transactions",
        advice="" if takes else "have the interaction transaction allowed there",
    )
