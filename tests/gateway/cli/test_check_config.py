"""`check-config` finds every typical mistake: its line, its value and its rule, all of them in one run.

The numbers are those of the table in docs/configuration.md.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from gateway.settings import Settings, load_settings, to_toml
from gateway.settings.source.mistakes import shown
from gateway.spool.owner import owned
from tests.acceptance.peers import free_port
from tests.tls_samples import Authority

ROOT = Path(__file__).resolve().parents[3]
Run = Callable[..., tuple[int, str, str]]

PACS = '[[destinations]]\nkind = "dicom"\nname = "pacs"\nhost = "10.1.2.3"\nport = 104\nae_title = "PACS"\n'
DROP = '[[destinations]]\nkind = "folder"\nname = "drop"\npath = "ROOT/a-file"\n'
CALLER = '[[dicom.callers]]\nae_title = "SCANNER1"\n'
TLS = '[dicom.tls]\nport = 0\ncertificate_file = "ROOT/{}.pem"\nprivate_key_file = "ROOT/{}.key"\n'
INBOX = '[[folders]]\npath = "ROOT/inbox"\n'

# number of the mistake, the file, the line, what is said of it; ROOT is a folder, USED and FREE are ports
MISTAKES = [
    (1, "[dicom]\nprot = 104\nport = FREE\n", 2, "dicom.prot = 104: is no setting of [dicom]: is port meant?"),
    (1, "\n[dicon]\nport = 104\n", 2, "dicon: is no setting of the file: is dicom meant?"),
    (2, PACS + '[destinations.retry]\ncalling_ae_title = "E"\n', 8, "but of [[destinations]]: write it above the line"),
    (3, '[dicom]\nport = "dicom"\n', 2, "dicom.port = 'dicom': must be a valid integer"),
    (3, CALLER + 'hosts = "10.1.2.3"\n', 3, "dicom.callers.SCANNER1.hosts = '10.1.2.3': must be a list: [...]"),
    (3, PACS.replace("[[destinations]]", "[destinations]"), 1, "destinations: must be a list: write [[destinations]]"),
    (3, "digitizer = 8080\n" + PACS, 1, "digitizer = 8080: must be a table"),
    (3, "[digitizer]\nlayouts = 3\n", 2, "digitizer.layouts = 3: must be a path, in quotation marks"),
    (4, "[dicom]\nport = 70000\n", 2, "dicom.port = 70000: must be less than or equal to 65535"),
    (4, '[log]\nlevel = "INF0"\n', 2, "log.level = 'INF0': must be 'DEBUG', 'INFO', 'WARNING' or 'ERROR'"),
    (
        4,
        PACS.replace('"dicom"', '"dicm"'),
        2,
        "must be one of 'dicom', 'dicomweb', 'hl7', 'fhir', 'folder': is dicom meant?",
    ),
    (5, '[dicom]\nae_title = "ECG\nport = 104\n', 2, "is no TOML: "),
    (5, "[dicom]\nport 104\n", 2, "is no TOML: "),
    (6, PACS.replace('host = "10.1.2.3"\n', ""), 1, "destinations.pacs.host: is missing in [[destinations]]"),
    (7, '[dicom]\nae_title = "ECG-GATEWAY-WARD-7"\nport = FREE\n', 2, "has 18 characters; an AE title has at most 16"),
    (8, PACS.replace("10.1.2.3", "http://10.1.2.3:104"), 4, "must be an IP address or a host name, and nothing else"),
    (8, CALLER + 'hosts = [\n  "10.1.2.0/24",\n  "10.1.2.0/33",\n]\n', 5, "must be an IP address or a network such as"),
    (8, '[dicom]\nhost = "192.0.2.1"\n', 2, "dicom.host = '192.0.2.1': is no address of this machine"),
    (9, "[dicom]\nport = 8104\n[web]\nport = 8104\n", 4, "web.port = 8104: dicom.port is the same (line 2)"),
    (10, "[dicom]\nport = USED\n", 2, "dicom.port = USED: the port is in use by process "),
    (
        11,
        INBOX + INBOX.replace("inbox", "inbox/../inbox/sub"),
        4,
        "is, contains or lies inside folder ROOT/inbox (line 2)",
    ),
    (11, INBOX.replace("/inbox", ""), 2, "is or contains the storage path ROOT/var"),
    (12, CALLER + CALLER + 'hosts = ["10.1.2.3"]\n', 4, "SCANNER1.ae_title = 'SCANNER1': is listed twice"),
    (13, PACS + PACS.replace("10.1.2.3", "10.1.2.4"), 9, "another destination has this name (line 3)"),
    (
        13,
        PACS + PACS.replace('"pacs"', '"pacs2"'),
        7,
        "destinations.pacs2: is the same as pacs: everything would be sent twice (line 1)",
    ),
    (
        14,
        PACS + INBOX + 'destinations = ["pcas"]\n',
        9,
        "folders.1.destinations.1 = 'pcas': no destination has this name: is pacs meant?",
    ),
    (
        15,
        INBOX + "filename_pattern = '(?P<patient_id>\\d+)'\n",
        3,
        "is not used with identity = 'sidecar': set identity",
    ),
    (15, INBOX + 'identity = "filename"\n', 3, "folders.1.identity = 'filename': needs filename_pattern"),
    (16, INBOX + "barcode_pattern = '(?P<patient_id>\\d+'\n", 3, "is no regular expression: missing )"),
    (16, INBOX + "barcode_pattern = '(?P<patient>\\d+)'\n", 3, "needs a group (?P<patient_id>...)"),
    (
        16,
        INBOX + "barcode_pattern = '(?P<patient_id>\\d)(?P<ward>.)'\n",
        3,
        "has groups that are no field of an ECG: ward",
    ),
    (17, PACS + "storage_commitment = true\n", 7, "10.1.2.3 cannot reach 127.0.0.1: set [dicom] host to the address"),
    (18, TLS.format("absent", "good"), 3, "absent.pem': the file cannot be read: no such file or directory"),
    (18, TLS.format("empty", "good"), 3, "empty.pem': holds no PEM certificate"),
    (19, TLS.format("old", "old"), 3, "old.pem': expired on 20"),
    (20, TLS.format("good", "other"), 4, "key values mismatch (line 3)"),
    (21, '[storage]\npath = "/proc/ecg-gateway"\n', 2, "storage.path = '/proc/ecg-gateway': cannot be made here"),
    (
        21,
        INBOX.replace("inbox", "share"),
        2,
        "folders.1.path = 'ROOT/share': the folder is missing: make it, or mount it",
    ),
    (21, DROP, 4, "destinations.drop.path = 'ROOT/a-file': ROOT/a-file is no folder"),
    (
        23,
        '[web]\nhost = "0.0.0.0"\nport = FREE\n',
        2,
        "are not served to other machines while nobody can log in: make an account",
    ),
    (24, '[digitizer]\nlayouts = "ROOT/absent.toml"\n', 2, "absent.toml': the file cannot be read"),
    (24, '[digitizer]\nlayouts = "ROOT/a-file"\n', 2, "the file must hold [[layout]] tables"),
    (24, '[storage]\ndatabase_password_file = "ROOT/absent.pw"\n', 2, "absent.pw': the file cannot be read"),
]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the files name: an inbox, certificates, a file."""
    root = tmp_path_factory.mktemp("site")
    for name in ("inbox", "drop", "var"):
        (root / name).mkdir()
    authority = Authority(root)
    for name, days in (("good", 365.0), ("other", 365.0), ("old", -1.0)):
        authority.issue(name, days=days)
    (root / "empty.pem").touch()
    (root / "a-file").touch()
    return root


@pytest.fixture(scope="module")
def used_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        yield taken.getsockname()[1]


RIGHT = {  # what a file has that says nothing about it
    "[storage]": 'path = "ROOT/var"',
    "[[folders]]": 'path = "ROOT/inbox"',
    "[dicom]": "port = FREE",
    "[web]": "port = FREE",
}


@pytest.fixture
def check(root: Path, used_port: int, gateway_command: Run) -> Callable[..., tuple[int, str, str]]:
    """Check the text of a file, whose other settings are right: exit status, standard output, standard error."""
    file = root / "gateway.toml"

    def check(text: str, *arguments: str) -> tuple[int, str, str]:
        for table, right in RIGHT.items():
            text += "" if table in text else f"{table}\n{right}\n"
        for word, value in (("ROOT", root), ("USED", used_port)):
            text = text.replace(word, str(value))
        while "FREE" in text:
            text = text.replace("FREE", str(free_port()), 1)
        file.write_text(text, encoding="utf-8")
        return gateway_command(file, "check-config", *arguments)

    return check


@pytest.mark.parametrize(("number", "text", "line", "words"), MISTAKES)
def test_mistake_is_found(
    check: Callable[..., tuple[int, str, str]],
    root: Path,
    used_port: int,
    number: int,
    text: str,
    line: int,
    words: str,
) -> None:
    status, output, errors = check(text)
    assert (status, output) == (2, "")
    (mistake,) = errors.removeprefix("error: ").splitlines()  # no other mistake, and no settings
    assert mistake.startswith(f"{root}/gateway.toml:{line}: ")
    expected = words.replace("ROOT", str(root)).replace("USED", str(used_port))
    assert expected in re.sub(r"port \d+ sees", "port FREE sees", mistake)


def test_unknown_time_zone_is_found(
    check: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Number 22: the system would take UTC in silence."""
    for zone in ("Europe/Berlin", "CET-1CEST", ":UTC", "<+03>-3", "/usr/share/zoneinfo/UTC"):
        monkeypatch.setenv("TZ", zone)
        assert check("")[0] == 0, zone
    monkeypatch.setenv("TZ", "Europe/Berln")
    status, _, errors = check("")
    assert status == 2 and "TZ = 'Europe/Berln': the environment names a time zone that this machine does not" in errors


def test_the_table_of_the_docs_has_the_same_mistakes() -> None:
    table = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    rows = {int(number) for number in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)}
    assert rows == {number for number, *_ in MISTAKES} | {22} == set(range(1, 25))


def test_all_mistakes_are_found_in_one_run(check: Callable[..., tuple[int, str, str]], root: Path) -> None:
    """Also rules about several settings, and the machine, where single settings are wrong; nothing that follows."""
    text = (
        '[dicom]\nprot = 104\nport = 70000\nae_title = "ECG-GATEWAY-WARD-7"\n'  # lines 2, 3, 4
        + CALLER * 2  # 8
        + "[dicon]\n"  # 9
        + PACS.replace("104", "104.5")  # 14
        + PACS.replace("10.1.2.3", "10.1.2.4") * 2  # 24
        + "[web]\nport = 8104\n[hl7]\nenabled = true\nport = 8104\n"  # 29
        + '[[folders]]\npath = "ROOT/share"\ndestinations = ["pcas", "pacs"]\n'  # 34, 35
        + '[storage]\npath = "ROOT/a-file"\n'  # 37
    )
    status, _, errors = check(text)
    found = [int(line) for line in re.findall(r"gateway\.toml:(\d+): ", errors)]
    assert status == 2
    assert found == [2, 3, 4, 8, 9, 14, 24, 29, 34, 35, 37], errors


def test_what_may_be_meant_so_is_a_warning(check: Callable[..., tuple[int, str, str]], root: Path) -> None:
    Authority(root / "soon").issue("soon", days=10)
    web = '[web]\nhost = "0.0.0.0"\nport = FREE\n'
    oidc = '[web.oidc]\nissuer = "https://login"\nclient_id = "x"\nclient_secret_file = "ROOT/a-file"\n'
    status, output, errors = check(web + oidc + TLS.format("soon/soon", "soon/soon"))
    assert (status, len(errors.splitlines())) == (0, 2), errors
    assert "gateway.toml:2: web.host = '0.0.0.0': passwords and patients cross the network in the clear" in errors
    assert "gateway.toml:10: dicom.tls.certificate_file = " in errors and "soon.pem': expires on" in errors
    assert "no mistakes" in output and "soon.pem ends on 20" in output


def test_how_commitment_results_arrive_is_said(check: Callable[..., tuple[int, str, str]]) -> None:
    status, output, errors = check(PACS + 'storage_commitment = true\n[dicom]\nhost = "0.0.0.0"\nport = FREE\n')
    assert status == 0, errors
    assert "pacs: commitment results are taken of PACS from 10.1.2.3, to ECGGW at 0.0.0.0, port " in output


def test_ports_of_the_gateway_that_runs_are_its_own(check: Callable[..., tuple[int, str, str]], root: Path) -> None:
    with owned(root / "var"):
        assert check("[dicom]\nport = USED\n")[0] == 0
    assert check("[dicom]\nport = USED\n")[0] == 2


def test_peers_are_checked_too(check: Callable[..., tuple[int, str, str]], root: Path) -> None:
    drop = f'[[destinations]]\nkind = "folder"\nname = "drop"\npath = "{root}/drop"\n'
    status, output, _ = check(drop, "--peers")
    assert status == 0 and f"drop (folder)\nok     folder: {root}/drop can be written to" in output
    assert list((root / "drop").iterdir()) == []
    engine = '[[destinations]]\nkind = "hl7"\nname = "ehr"\nhost = "127.0.0.1"\nport = {}\n'
    status, output, _ = check(drop + engine.format("FREE"), "--peers")
    assert status == 1 and "ehr (hl7)" in output and "FAILED TCP" in output
    assert check(engine.format("USED"), "--peers")[0] == 0


@pytest.mark.parametrize(
    ("setting", "value", "text"),
    [
        ("password", "hunter2", "***"),
        ("bearer_token", "hunter2", "***"),
        ("token_file", "/etc/token", "'/etc/token'"),
        ("url", "https://ecggw:hunter2@pacs/dicom-web", "'https://***pacs/dicom-web'"),
        (
            "database",
            "postgresql+psycopg:///ecggw?host=/run&password=hunter2",
            "'postgresql+psycopg:///ecggw?host=/run&***'",
        ),
        ("barcode_pattern", r"\d+", r"'\d+'"),
        ("destinations", [{"name": "pacs"}], ""),
        ("ae_title", "A\nB", r"'A\nB'"),
    ],
)
def test_no_secret_and_no_table_is_repeated(setting: str, value: object, text: str) -> None:
    assert shown(("storage", setting), value) == text


# -- config show ------------------------------------------------------------------------------------------------------


@pytest.fixture
def show(config: Path, gateway_command: Run) -> Callable[..., tuple[int, str, str]]:
    return partial(gateway_command, config, "config show")


def test_config_show_prints_what_loads_to_the_same_and_where_it_comes_from(
    show: Callable[..., tuple[int, str, str]], config: Path, tmp_path: Path
) -> None:
    status, output, _ = show()
    assert status == 0
    printed = tmp_path / "printed.toml"
    printed.write_text(output, encoding="utf-8")
    assert load_settings(printed) == load_settings(config)
    for line in (
        "# calling_ae_title is not set  # default",
        "page_timeout_s = 300.0  # default",
        f'ae_title = "SCANNER"  # {config}:6',
        f"attempts = 7  # {config}:19",
    ):
        assert line in output.splitlines()


def test_config_show_masks_what_may_be_secret(show: Callable[..., tuple[int, str, str]], config: Path) -> None:
    with config.open("a", encoding="utf-8") as file:
        file.write('[[destinations]]\nkind = "hl7"\nname = "ehr"\nhost = "ehr"\nport = 1\nreport = "link"\n')
        file.write('report_url = "https://u:hunter2@viewer/?token=hunter2&study={study_instance_uid}"\n')
    status, output, _ = show()
    assert status == 0 and "hunter2" not in output and "study={study_instance_uid}" in output


def test_config_show_of_a_wrong_file_says_what_check_config_says(
    show: Callable[..., tuple[int, str, str]], config: Path
) -> None:
    config.write_text("[dicom]\nprot = 104\n[web]\nhost = 7\n", encoding="utf-8")
    status, output, errors = show()
    assert (status, output) == (2, "")
    assert [line.partition(": ")[0] for line in errors.removeprefix("error: ").splitlines()] == [
        f"{config}:2",
        f"{config}:4",
    ]


def test_default_settings_print_as_toml_too(tmp_path: Path) -> None:
    printed = tmp_path / "printed.toml"
    printed.write_text(to_toml(Settings()), encoding="utf-8")
    assert load_settings(printed) == Settings()
