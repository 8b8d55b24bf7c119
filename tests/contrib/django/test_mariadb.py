"""MariaDB speaks another SQL than the databases that the whole suite is run on."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.conformance.running import SUITE, run_suite
from upshot_conformance.servers import MariaDBServer

# Django asks for mysqlclient, which has to be compiled; PyMySQL passes for it.
SETTINGS = """
    import pymysql

    pymysql.version_info = (2, 2, 4, "final", 0)
    pymysql.install_as_MySQLdb()

    DATABASES = {{
        "default": {{
            "ENGINE": "django.db.backends.mysql",
            "HOST": {place.hostname!r},
            "PORT": {place.port},
            "USER": {place.username!r},
            "PASSWORD": {place.password!r},
            "NAME": {place.path!r}[1:],
        }}
    }}
    INSTALLED_APPS = ["upshot_contrib.django"]
    SECRET_KEY = "x"
    UPSHOT = {{"broker": "memory://"}}
"""
CLAUSES = ("ST-3", "ST-5", "RS-6", "BT-3")  # about what its statements do


@pytest.mark.timeout(300)
def test_the_statements_for_mariadb_keep_the_contract(
    tmp_path: Path, mariadb_server: MariaDBServer
) -> None:
    text = textwrap.dedent(SETTINGS).format(place=urlsplit(mariadb_server.url))
    (tmp_path / "on_mariadb.py").write_text(text)
    environment = {"DJANGO_SETTINGS_MODULE": "on_mariadb", "PYTHONPATH": str(tmp_path)}
    subprocess.run(
        [sys.executable, "-m", "django", "migrate", "--verbosity=0"],
        env=os.environ | environment,
        check=True,
    )

    outcome = run_suite(
        tmp_path,
        *SUITE,
        "--backend=django-db://",
        *(f"--clause={each}" for each in CLAUSES),
        path=[tmp_path],
        environment={"DJANGO_SETTINGS_MODULE": "on_mariadb"},
    )

    assert outcome.code == 0, outcome.text
    assert "failed:" not in outcome.text
