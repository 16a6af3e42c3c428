"""The JSON of a page says what is printed on it, as printed."""

import json
from dataclasses import replace
from datetime import date, time

from pipeline import PrintedValues
from pipeline.output.files import to_json
from tests.pipeline import paper_samples


def test_json_has_what_is_printed_apart_from_what_is_measured() -> None:
    printed = PrintedValues(
        recorded_on=date(2021, 4, 3), recorded_at=time(10, 15, 3), heart_rate_per_minute=80, filters=("40Hz",)
    )
    result = paper_samples.digitization()
    known = json.loads(to_json(replace(result, printed=printed)))["printed"]
    assert (known["recorded_on"], known["recorded_at"]) == ("2021-04-03", "10:15:03")
    assert (known["heart_rate_per_minute"], known["qt_ms"], known["filters"]) == (80, None, ["40Hz"])
    days = (date(2021, 3, 4), date(2021, 4, 3))
    doubt = json.loads(to_json(replace(result, printed=PrintedValues(may_be_recorded_on=days))))["printed"]
    assert doubt["recorded_on"] is None and doubt["may_be_recorded_on"] == ["2021-03-04", "2021-04-03"]
