"""The pages in Debian's chromium as a site has them: accounts, TLS, and nginx in front at a sub-path."""

from __future__ import annotations

import os
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import dcmread

from gateway.domain.account import AccountRole
from gateway.results.confirmation import confirm
from pipeline import LEADS
from tests.gateway.web.browsing import PASSWORD, add_account
from tests.interop.browser import NARROW, WIDE, Bench, chromium_browser, log_in, opened, ready, start
from tests.interop.peers import free_port
from tests.interop.proxies import NGINX, nginx, running
from tests.tls_samples import Authority
from tests.waiting import PATIENCE_S

AXE = (Path(__file__).parent / "axe" / "axe.min.js").read_text(encoding="utf-8")
RULES = {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}
PICTURES = os.environ.get("ECG_PICTURES", "")  # a folder for a picture of every page, to be looked at

pytestmark = [pytest.mark.interop, pytest.mark.skipif(NGINX is None, reason="nginx is not installed")]


@pytest.fixture(scope="module")
def chromium():
    with chromium_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def site(chromium, tmp_path_factory) -> Iterator[Bench]:
    """The daemon; `url` is nginx's."""
    folder, port = tmp_path_factory.mktemp("site"), free_port()
    web = 'web.root_path = "/ecg"\nweb.allowed_hosts = ["localhost"]\nweb.proxies = ["127.0.0.1"]'
    with start(folder, "tests.drawn_digitizer", web) as bench:
        add_account(bench.store, "ann", AccountRole.ADMIN, full_name="Dr Ann Lee")
        add_account(bench.store, "vic", AccountRole.VIEWER)
        behind = int(bench.url.rpartition(":")[2])
        with running(nginx(folder, Authority(folder), port, behind, log_in=False), port, folder):
            bench.url = f"https://localhost:{port}"
            yield bench


def serious(page, *, contrast_only: bool) -> list[str]:
    """What axe-core finds that is serious or critical: rule, and the first element of each."""
    only = {"type": "rule", "values": ["color-contrast"]} if contrast_only else RULES
    found = page.evaluate("(options) => axe.run(document, options)", {"runOnly": only, "resultTypes": ["violations"]})
    assert found["passes"] or found["incomplete"]
    return [
        f"{page.url}: {each['id']}, {len(each['nodes'])} times: {each['nodes'][0]['html'][:160]}"
        for each in found["violations"]
        if each["impact"] in ("serious", "critical")
    ]


def looks(page, name: str) -> list[str]:
    """What is serious on a page, in light and in dark, on a wide and a narrow screen."""
    page.evaluate(AXE)
    found = []
    for size in (WIDE, NARROW):
        page.set_viewport_size(dict(zip(("width", "height"), size, strict=True)))
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            found += serious(page, contrast_only=scheme == "dark")
            if PICTURES:
                page.screenshot(path=f"{PICTURES}/{name}-{size[0]}-{scheme}.png", full_page=True)
        if page.evaluate("document.documentElement.scrollWidth > window.innerWidth"):
            found.append(f"{page.url}: scrolls sideways at {size[0]} pixels")
    page.emulate_media(color_scheme="light")
    page.set_viewport_size(dict(zip(("width", "height"), WIDE, strict=True)))
    return found


def test_axe_finds_nothing_serious_on_any_page(site, chromium):
    job_id = site.submit(1)
    found = []
    with opened(chromium, site.url, ignore_https_errors=True) as page:
        page.goto("/ecg/login")
        found += looks(page, "login")
        log_in(page, "ann", "/ecg/login")
        for name in ("", "review", "unmatched", "account", "accounts", f"jobs/{job_id}", "nowhere"):
            page.goto(f"/ecg/{name}")
            found += looks(page, name.partition("/")[0] or "queue")
        page.goto(f"/ecg/review/{job_id}")
        ready(page)
        page.locator("#agree-patient").click()
        ready(page)
        for details in page.locator("#side-review details").all():
            details.evaluate("(each) => { each.open = true; }")
        found += looks(page, "review")
        page.keyboard.press("e")
        for details in page.locator("#side-correct details").all():
            details.evaluate("(each) => { each.open = true; }")
        found += looks(page, "correct")
        page.keyboard.press("?")
        found += looks(page, "keys")
    assert found == []


def test_some_leads_are_accepted_behind_nginx_at_a_sub_path(site, chromium):
    """A reviewer logs in, leaves out a lead, reads again, agrees, accepts: every step by the address of the proxy."""
    job_id = site.submit(4)
    with opened(chromium, site.url, ignore_https_errors=True) as page:
        asked = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"/ecg/review/{job_id}")
        page.locator("input[name=name]").fill("ann")
        page.locator("input[name=password]").fill(PASSWORD)
        page.keyboard.press("Enter")
        ready(page)  # the job that was asked for before the log-in
        page.keyboard.press("e")
        page.locator("[data-left-out=V6]").check()
        page.locator("#read-again").click()
        page.wait_for_selector("#acts", timeout=1000 * PATIENCE_S)
        ready(page)
        left_out = "Not accepted by a person, left out: V6 7.5-10.0 s."
        assert page.locator("#acts").inner_text() == left_out
        record = page.request.get(f"/ecg/jobs/{job_id}/pages/1/record.json").json()
        assert [lead["lead"] for lead in record["leads"]] == [lead for lead in LEADS if lead != "V6"]
        for key, sign in (("t", "#traces-agreed"), ("p", "#patient-agreed"), ("a", ".revocable")):
            page.keyboard.press(key)
            page.wait_for_selector(sign)
            if key != "a":
                ready(page)
        assert page.url.startswith(f"{site.url}/ecg/review")
        assert {url.partition("/ecg/")[0] for url in asked if not url.startswith("data:")} == {site.url}
    confirm(site.store, site.spool, site.settings, job_id, "ann")  # what the end of the minute does
    (sent,) = [each for each in site.store.deliveries.of_job(job_id) if each.result_status == "F"]
    assert left_out[:-1] in site.spool.read(job_id, sent.artefact).decode()
    made = dcmread(BytesIO(site.spool.read(job_id, "page-1.12-lead.dcm")))
    notes = [item.UnformattedTextValue for item in made.WaveformAnnotationSequence if "UnformattedTextValue" in item]
    assert "A person did not accept this lead: its samples are left out." in notes
