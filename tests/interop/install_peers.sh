#!/bin/sh
# Install the peers the interoperability tests talk to, from Debian, npm and PyPI; where that may not be, say so and go
# on: the tests then skip what is missing, each with its reason.
set -u
peers="$(dirname "$0")/node"
if command -v npm >/dev/null && command -v node >/dev/null &&
    npm install --prefix "$peers" --no-package-lock --no-audit --no-fund --silent; then
    echo "interop: node-hl7-client, node-hl7-server, simple-hl7, @medplum/fhir-router and @cornerstonejs/metadata are installed"
else
    echo "interop: SKIPPING the tests that need: node-hl7-client node-hl7-server simple-hl7 @medplum/fhir-router @cornerstonejs/metadata (npm could not install them)"
fi
if .venv/bin/python -m pip install --quiet --disable-pip-version-check -c config/constraints.txt hl7 2>/dev/null; then
    echo "interop: mllp_send of python-hl7 is installed"
else
    echo "interop: SKIPPING the tests that need: hl7 (pip could not install it)"
fi
if .venv/bin/python -m pip install --quiet --disable-pip-version-check -c config/constraints.txt 'ray[data]' 2>/dev/null; then
    echo "interop: ray is installed"
else
    echo "interop: SKIPPING the tests that need: ray (pip could not install it)"
fi
if .venv/bin/python -m pip install --quiet --disable-pip-version-check -c config/constraints.txt imagecodecs 2>/dev/null; then
    echo "interop: imagecodecs (OpenJPH, writes HTJ2K) is installed"
else
    echo "interop: SKIPPING the tests that need: imagecodecs (pip could not install it)"
fi
if .venv/bin/python -m pip install --quiet --disable-pip-version-check -c config/constraints.txt dicom-ecg-plot 2>/dev/null; then
    echo "interop: dicom-ecg-plot is installed"
else
    echo "interop: SKIPPING the tests that need: dicom-ecg-plot (pip could not install it)"
fi
missing=""
ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || missing=" postgresql"
for pair in ceph-mon:/usr/bin/ceph-mon ceph-osd:/usr/bin/ceph-osd ceph-common:/usr/bin/ceph radosgw:/usr/bin/radosgw dcmtk:/usr/bin/storescu dicom3tools:/usr/bin/dciodvfy orthanc:/usr/sbin/Orthanc orthanc-dicomweb:/usr/share/orthanc/plugins/libOrthancDicomWeb.so libgdcm-tools:/usr/bin/gdcmconv libpixelmed-java:/usr/share/java/pixelmed.jar default-jdk-headless:/usr/bin/javac rsyslog:/usr/sbin/rsyslogd nginx:/usr/sbin/nginx caddy:/usr/bin/caddy prometheus:/usr/bin/prometheus chromium:/usr/bin/chromium; do
    [ -e "${pair#*:}" ] || missing="$missing ${pair%%:*}"
done
ls /usr/lib/*/rsyslog/lmnsd_gtls.so >/dev/null 2>&1 || missing="$missing rsyslog-gnutls"
if [ -z "$missing" ]; then
    echo "interop: postgresql, ceph with radosgw, dcmtk, dicom3tools, orthanc, orthanc-dicomweb, libgdcm-tools, libpixelmed-java, a JDK, rsyslog, nginx, caddy, prometheus and chromium are installed"
    exit 0
fi
if ! command -v apt-get >/dev/null || [ "$(id -u)" -ne 0 ]; then
    echo "interop: SKIPPING the tests that need:$missing (install them with: apt-get install$missing)"
    exit 0
fi
export DEBIAN_FRONTEND=noninteractive
# The packages of Orthanc and PostgreSQL start a server when they are installed; the tests start their own.
[ -e /usr/sbin/policy-rc.d ] || { printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d && chmod +x /usr/sbin/policy-rc.d && made=1; }
# shellcheck disable=SC2086 - a list of names
(apt-get update -qq && apt-get install -y -qq --no-install-recommends $missing) >/dev/null ||
    echo "interop: SKIPPING what needs one of:$missing (apt-get could not install them)"
[ "${made:-0}" = 1 ] && rm -f /usr/sbin/policy-rc.d
exit 0
