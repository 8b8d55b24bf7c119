"""What only this backend promises. The contract is tested by the suite; see README.md."""

from __future__ import annotations

import pytest

from upshot.errors import UrlError
from upshot.url import Url
from upshot_dict.backend import DictBackend
from upshot_dict.connection import Connection, RefusedError
from upshot_dict.harness import DictServer


@pytest.mark.parametrize(
    "text",
    [
        "dict://",
        "dict://one,two",
        "dict://localhost/results",
        "dict://me:secret@localhost",
        "dict://localhost?timeout=1",
        "dict://localhost?upshot_x=1",
    ],
)
def test_a_url_that_is_no_host_and_port_is_refused(text: str) -> None:
    with pytest.raises(UrlError):
        DictBackend(Url.parse(text))


def test_what_the_server_cannot_do_it_refuses_and_goes_on() -> None:
    with DictServer() as server:
        connection = Connection(("127.0.0.1", server.port), 10.0)

        with pytest.raises(RefusedError, match="cannot do 'nothing'"):
            connection.ask({"do": "nothing"}, 10.0)
        assert connection.ask({"do": "load", "keys": ["a"]}, 10.0) == {"bodies": [None]}
        connection.close()
