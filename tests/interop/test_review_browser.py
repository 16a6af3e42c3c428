"""The review workbench in Debian's chromium, with the real daemon: a reviewer works by pointer and by keys."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

import pytest

from gateway.domain.account import AccountRole
from tests.drawn_digitizer import LEFT_MM, PX_PER_MM, SPIKE_MM, STRANGER, TOP_MM
from tests.gateway.web.browsing import add_account
from tests.interop.browser import NARROW, Bench, at, chromium_browser, log_in, opened, ready, show, start
from tests.waiting import PATIENCE_S, eventually, wait_for

MARKUP = "<script>alert(1)</script>"
SLOW_S = 5 * PATIENCE_S  # a page with the networks, on a machine that does other things

pytestmark = pytest.mark.interop


@pytest.fixture(scope="module")
def chromium():
    with chromium_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def bench(chromium, tmp_path_factory) -> Iterator[Bench]:
    with start(tmp_path_factory.mktemp("bench"), "tests.drawn_digitizer") as bench:
        yield bench


@pytest.fixture
def page(chromium, bench):
    with opened(chromium, bench.url) as page:
        yield page


def readout(page) -> str:
    return page.locator("#readout").inner_text()


def test_a_reviewer_goes_through_the_worklist_by_keys(bench, page):
    first, second = bench.submit(2), bench.submit(3)
    page.goto("/review")
    page.wait_for_selector(".worklist a:focus")
    order = page.eval_on_selector_all(".worklist a.open", "links => links.map((link) => link.id)")
    assert order.index(f"work-{second}") < order.index(f"work-{first}")  # another patient's ID is printed on it
    page.keyboard.press("j")
    assert page.evaluate("document.activeElement.id") == order[1]
    page.keyboard.press("k")
    page.keyboard.press("Enter")
    ready(page)
    assert page.url.endswith(order[0].removeprefix("work-"))
    page.keyboard.press("j")
    page.wait_for_url(f"**/{order[1].removeprefix('work-')}")
    page.keyboard.press("u")
    page.wait_for_url("**/review")


def test_pictures_point_at_the_same_lead_and_instant(bench, page):
    show(page, bench.submit(4))
    page.mouse.move(*at(page, "page-view", LEFT_MM + 125 + 20, TOP_MM))  # V1, 0.8 s after its start
    lead, seconds = readout(page).split()[:2]
    assert lead == "V1" and float(seconds) == pytest.approx(5.8, abs=0.03)
    on_page, on_paper = page.evaluate(
        "['page-view', 'ecg-view'].map((id) => document.getElementById(id).viewport.listener.place())"
    )
    assert on_page == pytest.approx([(LEFT_MM + 145) * PX_PER_MM, TOP_MM * PX_PER_MM], abs=8)
    assert on_paper[0] == pytest.approx(12 + 145, abs=1.5)
    page.locator("#speed").select_option("50")
    page.locator("#gain").select_option("20")
    page.locator("#format").select_option("12x1")
    assert page.locator("#ecg-view").get_attribute("data-paper") == "12x1, 50 mm/s, 20 mm/mV"


def test_calipers_measure_on_the_page_as_on_paper(bench, page):
    show(page, bench.submit(6))
    page.locator("#calipers").click()
    r_mm = LEFT_MM + 0.32 * 25  # two R waves of lead II, 0.8 s and 1.1 mV
    page.mouse.move(*at(page, "page-view", r_mm, TOP_MM + 28))
    page.mouse.down()
    page.mouse.move(*at(page, "page-view", r_mm + 20, TOP_MM + 28 - 11), steps=4)
    page.mouse.up()
    words = readout(page).split("|")[1]
    milliseconds, rate, millivolts = (float(part.split()[0].split("/")[0]) for part in words.split("·"))
    assert milliseconds == pytest.approx(800, abs=25) and rate == pytest.approx(75, abs=3)
    assert millivolts == pytest.approx(1.1, abs=0.1)


def test_doubtful_places_are_listed_and_a_key_goes_to_them(bench, page):
    show(page, bench.submit(8))
    assert page.locator("#doubts li").count() == 1
    assert "V1 6.24 s" in page.locator("#doubts").inner_text()
    page.keyboard.press("n")
    eventually(lambda: float(page.locator("#page-view").get_attribute("data-zoom") or 0) > 1.5)
    assert readout(page).startswith("V1 6.25")
    page.keyboard.press("o")
    assert page.locator("[data-toggle=overlay]").get_attribute("aria-pressed") == "false"
    page.keyboard.press("?")
    assert page.locator("#help").is_visible()


def test_accepted_with_the_keyboard_alone_and_taken_back(bench, page):
    job_id = bench.submit(10)
    show(page, job_id)
    assert page.locator("#accept").is_disabled()
    page.keyboard.press("t")
    page.wait_for_selector("#traces-agreed")
    ready(page)
    page.keyboard.press("p")
    page.wait_for_selector("#patient-agreed")
    ready(page)
    page.keyboard.press("a")
    page.wait_for_selector(".revocable")
    assert bench.store.review.decision(job_id) is not None
    page.locator(".revocable button").click()
    page.wait_for_url(f"**/{job_id}")
    assert bench.store.review.decision(job_id) is None
    assert "UNDO" in bench.actions(job_id) and not bench.store.jobs.get(job_id).confirmed_by


def test_page_of_another_patient_is_caught(bench, page):
    job_id = bench.submit(11)
    show(page, job_id)
    assert page.locator(".compare .differs").count() == 1
    page.locator("#agree-patient").click()
    ready(page)
    assert "Which is right?" in page.locator("#error-choice_patient_id").inner_text()
    page.locator("input[name=choice_patient_id][value=page]").check()
    page.locator("#agree-patient").click()
    ready(page)
    assert "Nobody is known under XR55231" in page.locator(".candidates").inner_text()
    entry = page.locator(".entry form")
    assert entry.locator("[name=patient_id]").input_value() == STRANGER.split()[-1]
    entry.locator("[name=patient_name]").fill("Otherman^Joe")
    entry.locator("button").click()
    eventually(lambda: bench.store.jobs.get(job_id).patient_id == "XR55231")
    bench.ended(job_id)
    page.wait_for_selector("#patient-agreed")
    assert bench.store.jobs.get(job_id).context.accession_number == ""


def test_missing_spike_is_drawn_in_by_hand(bench, page):
    job_id = bench.submit(12)
    show(page, job_id)
    page.keyboard.press("n")
    page.keyboard.press("e")
    page.locator("[data-tool=line]").click()
    x, y = SPIKE_MM
    page.mouse.move(*at(page, "page-view", x - 0.6, TOP_MM))
    page.mouse.down()
    for point in ((x, y), (x + 0.1, y - 11), (x + 0.2, TOP_MM), (x + 0.8, TOP_MM)):
        page.mouse.move(*at(page, "page-view", *point), steps=3)
    page.mouse.up()
    assert "A line in row 1" in page.locator("#stated").inner_text()
    page.locator("#read-again").click()
    eventually(lambda: "CORRECT" in bench.actions(job_id))
    bench.ended(job_id)
    (line,) = json.loads(bench.store.jobs.get(job_id).corrections_json)["1"]["lines"]
    assert line["row"] == 1
    highest = min(line["points_px"], key=lambda point: point[1])
    assert highest == pytest.approx([(x + 0.1) * PX_PER_MM, (y - 11) * PX_PER_MM], abs=3)
    page.wait_for_selector("#tab-correct")
    ready(page)
    page.keyboard.press("e")
    assert "A line in row 1" in page.locator("#stated").inner_text()  # it is still stated, and can be taken back


def test_rows_and_columns_are_dragged_and_names_exchanged(bench, page):
    job_id = bench.submit(14)
    show(page, job_id)
    page.keyboard.press("e")
    page.locator("[data-tool=rows]").click()
    page.mouse.move(*at(page, "page-view", LEFT_MM + 100, TOP_MM + 28))
    page.mouse.down()
    page.mouse.move(*at(page, "page-view", LEFT_MM + 100, TOP_MM + 31), steps=4)
    page.mouse.up()
    page.locator("[data-tool=columns]").click()
    page.keyboard.press(".")
    page.keyboard.press("ArrowRight")
    page.locator("#names summary").click()
    page.get_by_label("Row 1, column 1").fill("II")
    page.get_by_label("Row 2, column 1").fill("i")
    stated = json.loads(page.locator("#corrections").input_value())
    assert stated["leads"][0][0] == "II" and stated["leads"][1][0] == "I"
    assert stated["row_baselines_px"][1][1] == pytest.approx((TOP_MM + 31) * PX_PER_MM, abs=3)
    assert stated["column_edges_px"][1][0] == pytest.approx((LEFT_MM + 63) * PX_PER_MM, abs=2)
    assert len(stated["row_baselines_px"]) == 4 and len(stated["column_edges_px"]) == 5


def test_correction_that_breaks_a_rule_is_refused_beside_its_field(bench, page):
    job_id = bench.submit(16)
    show(page, job_id)
    page.keyboard.press("e")
    page.locator("#c-speed").fill("0")
    page.locator("#names summary").click()
    page.get_by_label("Row 1, column 1").fill("II")
    page.locator("#read-again").click()
    page.wait_for_selector("#error-paper_speed_mm_per_s")
    ready(page)
    assert "must be from 2 to 200" in page.locator("#error-paper_speed_mm_per_s").inner_text()
    assert "II more than once" in page.locator("#error-leads").inner_text()
    assert page.locator("#c-speed").input_value() == "0"
    assert page.get_by_label("Row 1, column 1").input_value() == "II"
    assert "CORRECT" not in bench.actions(job_id)


def test_stale_form_says_what_changed_and_keeps_what_was_typed(bench, page):
    job_id = bench.submit(18)
    show(page, job_id)
    page.keyboard.press("e")
    page.locator("#c-gain").fill("20")
    bench.store.review.take_over(job_id, "bob")
    bench.store.review.leave(job_id, "bob")
    page.locator("#read-again").click()
    page.wait_for_selector("#problem")
    assert "TAKE_OVER by bob" in page.locator("#problem").inner_text()
    ready(page)
    assert page.locator("#c-gain").input_value() == "20"
    page.locator("#read-again").click()
    eventually(lambda: "CORRECT" in bench.actions(job_id))
    bench.ended(job_id)
    assert json.loads(bench.store.jobs.get(job_id).corrections_json) == {"1": {"gain_mm_per_mv": 20}}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_narrow_screen_shows_everything_without_a_sideways_scroll(bench, chromium, scheme):
    job_id = bench.submit(20 if scheme == "light" else 22)
    with opened(chromium, bench.url, NARROW, color_scheme=scheme, has_touch=True) as page:
        for path in ("/review", f"/review/{job_id}"):
            page.goto(path)
            assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        ready(page)
        for part in ("#page-view", "#ecg-view", "#strip-view", "#agree-traces", "#agree-patient", "#accept"):
            box = page.locator(part).bounding_box()
            assert box["x"] >= 0 and box["x"] + box["width"] <= NARROW[0]
        dark = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 28)"
        assert dark == (scheme == "dark")


def test_markup_is_shown_as_text(bench, chromium):
    job_id = bench.submit(24, patient_name=f"{MARKUP}^Joe", accession_number="<b>A</b>")
    with opened(chromium, bench.url) as page:  # a dialog or a breach of the policy fails it
        for path in ("/review", "/", f"/jobs/{job_id}"):
            page.goto(path)
            assert page.locator("main b, main script").count() == 0
        show(page, job_id)
        assert MARKUP in page.locator(".compare").inner_text()
        assert page.locator("main b, main script").count() == 0


def test_wrong_speed_is_corrected_and_the_result_leaves_as_a_correction(chromium, tmp_path):
    """The whole way, with the networks: a page arrives, is corrected, accepted, and its minute passes."""
    with start(tmp_path, "gateway") as bench:
        drawing = [
            sys.executable,
            "-m",
            "pipeline.training.drawing.sample",
            str(tmp_path / "page.png"),
            "--layout",
            "6x2",
        ]
        subprocess.run(drawing, check=True)
        job_id = bench.submit(page=(tmp_path / "page.png").read_bytes(), timeout_s=SLOW_S)
        with opened(chromium, bench.url) as page:
            show(page, job_id)
            lengths = [
                len(lead["uv"]) for lead in page.request.get(f"/jobs/{job_id}/pages/1/record.json").json()["leads"]
            ]
            page.keyboard.press("e")
            page.locator("#c-speed").fill("50")
            page.locator("#read-again").click()
            eventually(lambda: "CORRECT" in bench.actions(job_id))
            bench.ended(job_id, SLOW_S)
            page.wait_for_selector("#bench[data-working=false][data-ready=true]")
            ready(page)
            halved = [
                len(lead["uv"]) for lead in page.request.get(f"/jobs/{job_id}/pages/1/record.json").json()["leads"]
            ]
            assert halved == pytest.approx([length / 2 for length in lengths], abs=4)
            for key, sign in (("t", "#traces-agreed"), ("p", "#patient-agreed"), ("a", ".revocable")):
                page.keyboard.press(key)
                page.wait_for_selector(sign)
                if key != "a":
                    ready(page)
            decided = len(bench.ehr.messages)
            wait_for("the minute to pass", lambda: bench.store.jobs.get(job_id).confirmed_by, 3 * PATIENCE_S)
            eventually(lambda: len(bench.ehr.messages) > decided)
        last = list(bench.ehr.messages.values())[-1].decode()
        assert "|C\r" in last and "P1000" in last  # a preliminary result had left before
        assert "Paper speed 50 mm/s (person)" in last


def test_zz_two_reviewers_collide(bench, chromium):
    """Last: from here on the gateway has accounts."""
    job_id = bench.submit(26)
    for name in ("ann", "bob"):
        add_account(bench.store, name, AccountRole.REVIEWER)

    with opened(chromium, bench.url) as anns, opened(chromium, bench.url) as bobs:
        log_in(anns, "ann")
        log_in(bobs, "bob")
        show(anns, job_id)
        show(bobs, job_id)
        assert "ann has it open" in bobs.locator("#holder").inner_text()
        bobs.locator("#agree-traces").click()
        bobs.wait_for_selector("#problem")
        assert "ann has this job open" in bobs.locator("#problem").inner_text()
        bobs.get_by_role("button", name="Take over").click()
        ready(bobs)
        bobs.locator("#agree-traces").click()
        bobs.wait_for_selector("#traces-agreed")
        anns.locator("#agree-traces").click()
        anns.wait_for_selector("#problem")
        assert "TRACES_AGREE by bob" in anns.locator("#problem").inner_text()
