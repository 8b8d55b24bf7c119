"""The page in a real browser: hostile names and values, live updates, looks."""

from __future__ import annotations

import os
import textwrap
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.wait import WebDriverWait

from tests.browsers import SECONDS, chromium, comes_to_show, command, run, shoot, text_of
from tests.conftest import Worker
from upshot import App, clock
from upshot.outcome import encode_value
from upshot.record import Record, printable
from upshot.states import State
from upshot_conformance.records import CODECS, failure, success
from upshot_conformance.servers import RedisServer

from .conftest import SERVICES
from .serving import WebProcess

pytestmark = pytest.mark.timeout(300)

EVIL = [
    "<script>document.title='evil'</script>",
    '"><img src=x onerror="document.title=\'evil\'">',
    "'><svg onload=alert(1)>",
    "javascript:alert(1)",
    "</pre></td></table><h1>evil</h1>",
    "{{ 7 * 7 }} {% raw %}",
    "\u202egnp.exe\u202c \u2066hidden\u2069",
    "&lt;b&gt; &amp;amp; ]]><!--",
]
JOBS = """
    import time

    from upshot import App, current_task

    app = App("jobs")


    @app.task
    def steps(folder):
        import os

        current_task().progress(1, 4)
        while not os.path.exists(os.path.join(folder, "go")):
            time.sleep(0.02)
        return "arrived"
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    with chromium(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


class Scene:
    """An app, and its page in the browser.

    Args:
        folder: where `jobs.py` is.
        url: of the service that is broker and backend, or of a backend.
        browser: looks at the page.
    """

    def __init__(self, folder: Path, url: str, browser: webdriver.Chrome) -> None:
        self.browser = browser
        self.folder = folder
        broker = url if url.startswith(("sqlite", "redis")) else f"sqlite:///{folder}/queue.db"
        self.settings = {"broker": broker, "backend": url, "namespace": f"w{os.urandom(4).hex()}"}
        self.environment = {
            "UPSHOT_BROKER_URL": broker,
            "UPSHOT_RESULT_BACKEND": url,
            "UPSHOT_NAMESPACE": self.settings["namespace"],
        }
        (folder / "jobs.py").write_text(textwrap.dedent(JOBS))
        self.app = App("jobs", **self.settings)
        self.web = WebProcess(folder, environment=self.environment)
        self.complaints()  # what comes before is another test's

    def close(self) -> None:
        self.browser.get("about:blank")
        self.web.kill()
        self.app.close()

    def open(self, address: str = "") -> None:
        self.browser.get(self.web.link + address)
        # The driver comes back before the style sheet is there, now and then.
        self.until(lambda: run(self.browser, "return document.readyState") == "complete")

    def until(self, what: Callable[[], object]) -> None:
        def there(_: webdriver.Chrome) -> bool:
            return bool(what())

        WebDriverWait(self.browser, SECONDS, poll_frequency=0.1).until(there)

    def texts(self, selector: str) -> list[str]:
        found: list[str] = run(
            self.browser,
            "return [...document.querySelectorAll(arguments[0])].map((each) => each.textContent)",
            selector,
        )
        return found

    def complaints(self) -> list[Any]:
        """What the browser complains of: a policy that was broken, say."""
        window: Any = self.browser
        found: list[Any] = window.get_log("browser")
        return found


@pytest.fixture
def scene(
    request: pytest.FixtureRequest, tmp_path: Path, browser: webdriver.Chrome
) -> Iterator[Callable[[str], Scene]]:
    made: list[Scene] = []

    def make(service: str = "sqlite") -> Scene:
        url = f"sqlite:///{tmp_path}/queue.db"
        if service != "sqlite":
            url = request.getfixturevalue(f"{service}_server").url
        made.append(Scene(tmp_path, url, browser))
        return made[-1]

    yield make
    for each in made:
        each.close()


def raised(text: str) -> Exception:
    try:
        raise ValueError(text)
    except ValueError as exc:
        return exc


def store_evil(app: App) -> None:
    now = clock.now()
    for number, text in enumerate(EVIL):
        named: dict[str, Any] = {
            "name": text,
            "queue": text,
            "worker": text,
            "finished_at": now - number,
        }
        app.results.store(success(f"value{number}", {text: text})._replace(**named))
        app.results.store(failure(f"failure{number}", raised(text))._replace(**named))
        progress = encode_value(CODECS, {"current": 1, "total": 2, "why": text})
        app.results.store(
            Record(f"runs{number}", State.STARTED, name=text, worker=text, info=progress)
        )


def test_nothing_that_a_task_says_is_obeyed(scene: Callable[..., Scene]) -> None:
    page = scene()
    store_evil(page.app)
    expected = [printable(text) for text in EVIL]

    page.open("?q=value")
    assert page.texts(".c-task b") == expected
    page.open("?state=FAILURE")
    assert page.texts(".c-outcome code") == [f"builtins.ValueError: {text}" for text in expected]
    assert page.texts("h1") == ["Results"]
    assert "evil" not in page.browser.title
    for number, text in enumerate(expected):
        page.open(f"result?id=value{number}")
        assert page.texts(".title h1") == [text]
        assert page.texts("h1") == [text]
        page.open(f"result?id=failure{number}")
        assert page.texts("pre.text")[0] == f"builtins.ValueError: {text}"
        assert page.browser.title == f"failure{number} · upshot"
    page.open("workers")
    assert sorted(page.texts("tbody .c-task b")) == sorted(expected)
    assert run(page.browser, "return document.images.length") == 1
    assert page.complaints() == []


def test_evil_that_comes_live_is_not_obeyed_either(scene: Callable[..., Scene]) -> None:
    page = scene()
    page.open()
    assert "No results yet" in page.texts("h2")[0]
    store_evil(page.app)

    page.until(lambda: len(page.texts(".list tbody tr")) == 3 * len(EVIL))
    names = page.texts(".c-task b")
    assert names[: 2 * len(EVIL) : 2] == [printable(text) for text in EVIL]
    assert "evil" not in page.browser.title
    assert (
        run(page.browser, "return document.querySelectorAll('#part script, #part img').length") == 0
    )
    assert page.complaints() == []


def test_the_policy_stops_a_script_that_was_smuggled_in(scene: Callable[..., Scene]) -> None:
    page = scene()
    page.open()
    page.complaints()
    run(
        page.browser,
        "document.body.insertAdjacentHTML('beforeend', "
        '\'<img src=x onerror="document.title=1">'
        '<a id=a href="javascript:void(document.title=2)">a</a>\');'
        "document.getElementById('a').click();",
    )
    page.until(lambda: len(page.complaints()) > 0)

    assert page.browser.title == "Results · upshot"


def test_large_and_deep_values_are_cut_and_fit(scene: Callable[..., Scene]) -> None:
    page = scene()
    deep: Any = "bottom"
    for _ in range(190):
        deep = [deep]
    page.app.results.store(success("large", "x" * 2**20))
    page.app.results.store(success("deep", deep))
    page.app.results.store(success("nul", "a\0b\ud7ff\ufffe"))

    page.open("result?id=large")
    head, tail = page.texts("pre.text")
    assert (head[:3], tail[-3:]) == ('"xx', 'xx"')
    assert "characters are left out here" in page.texts(".cut")[0]
    page.open("result?id=deep")
    assert page.texts("pre.text") == [f'{"[" * 190}"bottom"{"]" * 190}']
    page.open("result?id=nul")
    assert page.texts("pre.text") == ['"a\\u0000b\\ud7ff\\ufffe"']


@pytest.mark.parametrize("service", SERVICES)
def test_a_task_is_followed_without_a_reload(
    service: str, scene: Callable[..., Scene], tmp_path: Path
) -> None:
    page = scene(service)
    worker = Worker(tmp_path, "-c", "1", environment=page.environment)
    try:
        with page.app as app:
            handle = app.send_task("jobs.steps", (str(tmp_path),))
            page.open()
            run(page.browser, "window.isSame = true")
            page.until(lambda: page.texts(".list .pill") == ["STARTED"])
            page.until(lambda: page.texts(".list .progress span") == ["1 of 4"])
            (tmp_path / "go").touch()
            page.until(lambda: page.texts(".list .pill") == ["SUCCESS"])
            assert page.texts(".c-outcome code") == ['"arrived"']
            assert run(page.browser, "return window.isSame") is True

            page.browser.find_element(By.CSS_SELECTOR, ".c-task a").click()
            page.until(lambda: page.texts("pre.text") == ['"arrived"'])
            assert page.texts("#task-id") == [handle.id]
            assert page.complaints() == []
    finally:
        worker.kill()


def test_the_page_of_a_task_follows_it_to_its_end(scene: Callable[..., Scene]) -> None:
    page = scene()
    page.open("result?id=it")
    assert page.texts(".pill") == ["PENDING"]
    page.app.results.store(Record("it", State.STARTED, name="jobs.it", started_at=clock.now()))
    page.until(lambda: page.texts(".pill") == ["STARTED"])
    page.app.results.store(success("it", 42))
    page.until(lambda: page.texts("pre.text") == ["42"])
    page.until(lambda: page.texts("#live-text") == ["Ended"])


def test_the_reader_keeps_the_place(scene: Callable[..., Scene]) -> None:
    page = scene()
    now = clock.now()
    page.app.results.store_many(
        success(f"{n:02}", n)._replace(name="jobs.it", finished_at=now - n) for n in range(40)
    )
    page.open()
    link = page.browser.find_elements(By.CSS_SELECTOR, ".c-task a")[30]
    run(
        page.browser,
        "arguments[0].focus(); arguments[0].scrollIntoView(); window.seen = arguments[0]",
        link,
    )
    before = run(page.browser, "return seen.getBoundingClientRect().top")
    page.app.results.store(success("new", 1)._replace(name="jobs.new", finished_at=now + 1))
    page.until(lambda: page.texts(".c-task b")[0] == "jobs.new")

    assert run(page.browser, "return document.activeElement === seen && seen.isConnected")
    assert abs(run(page.browser, "return seen.getBoundingClientRect().top") - before) < 3


def test_it_can_be_paused(scene: Callable[..., Scene]) -> None:
    page = scene()
    page.open()
    page.until(lambda: page.texts("#live-text") == ["Live"])
    button = page.browser.find_element(By.ID, "live-button")
    button.click()
    assert page.texts("#live-text") == ["Paused"]
    page.app.results.store(success("it", 1))
    button.click()
    page.until(lambda: len(page.texts(".list tbody tr")) == 1)


def test_trouble_that_is_over_when_it_goes_on_is_no_longer_shown(
    scene: Callable[..., Scene], redis_server: RedisServer
) -> None:
    page = scene("redis")
    page.open()
    redis_server.pause()
    try:
        page.until(lambda: text_of(page.browser, "#trouble") != [""])
        page.browser.find_element(By.ID, "live-button").click()
    finally:
        redis_server.resume()
    assert "cannot be reached" in text_of(page.browser, "#trouble")[0]

    page.browser.find_element(By.ID, "live-button").click()

    page.until(lambda: text_of(page.browser, "#trouble") == [""])


def test_it_is_searched_and_filtered_by_keyboard(scene: Callable[..., Scene]) -> None:
    page = scene()
    page.app.results.store(success("one", 1)._replace(name="shop.order"))
    page.app.results.store(failure("two", raised("no"))._replace(name="mail.send"))
    page.open()
    page.browser.switch_to.active_element.send_keys("/")
    page.browser.switch_to.active_element.send_keys("ORD" + Keys.ENTER)
    page.until(lambda: page.texts(".c-task b") == ["shop.order"])
    page.browser.find_element(By.LINK_TEXT, "Clear").send_keys(Keys.ENTER)
    page.until(lambda: len(page.texts(".c-task b")) == 2)
    page.browser.find_element(By.CSS_SELECTOR, ".tabs .failure").click()
    page.until(lambda: page.texts(".c-task b") == ["mail.send"])
    run(
        page.browser,
        "const since = document.querySelector('[name=since]'); since.value = '1h';"
        "since.dispatchEvent(new Event('change', { bubbles: true }))",
    )
    page.until(lambda: "since=1h" in page.browser.current_url)
    assert "state=FAILURE" in page.browser.current_url


def test_without_scripts_it_shows_the_same(scene: Callable[..., Scene]) -> None:
    page = scene()
    page.app.results.store(success("one", 1)._replace(name="shop.order"))
    command(page.browser, "Emulation.setScriptExecutionDisabled", value=True)
    try:
        page.open()
        assert text_of(page.browser, ".c-task b") == ["shop.order"]
        assert not page.browser.find_element(By.ID, "live-state").is_displayed()
        page.browser.find_element(By.ID, "search").send_keys("nothing" + Keys.ENTER)
        assert text_of(page.browser, ".empty h2") == ["Nothing matches"]
    finally:
        command(page.browser, "Emulation.setScriptExecutionDisabled", value=False)


def look_like(browser: webdriver.Chrome, scheme: str, width: int) -> None:
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    command(browser, "Emulation.setEmulatedMedia", features=features)
    command(
        browser,
        "Emulation.setDeviceMetricsOverride",
        width=width,
        height=900,
        deviceScaleFactor=1,
        mobile=width < 500,
    )


OUTSIDE = """
    const dom = document.documentElement;
    if (dom.scrollWidth <= dom.clientWidth) return [];
    return [...document.querySelectorAll("body, body *")]
      .map((each) => [each.tagName, each.className, each.getBoundingClientRect().right])
      .filter(([, , right]) => right > dom.clientWidth)
      .concat([["scrolls", dom.scrollWidth, dom.clientWidth]]);
"""
"""What reaches beyond the window, if one can scroll there."""

CONTRASTS = """
    const light = (color) => {
      const [r, g, b] = color.map((each) => each / 255)
        .map((each) => (each <= 0.04045 ? each / 12.92 : ((each + 0.055) / 1.055) ** 2.4));
      return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const parts = (color) => color.match(/[\\d.]+/g).map(Number);
    const ground = (node) => {
      for (let each = node; each; each = each.parentElement) {
        const found = parts(getComputedStyle(each).backgroundColor);
        if (found.length === 3 || found[3] > 0) return found.slice(0, 3);
      }
      return [255, 255, 255];
    };
    const bad = [];
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    for (let text = texts.nextNode(); text; text = texts.nextNode()) {
      const node = text.parentElement;
      if (!text.data.trim() || !node.checkVisibility()) continue;
      const ink = parts(getComputedStyle(node).color).slice(0, 3);
      const [one, other] = [light(ink), light(ground(node))];
      const contrast = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
      if (contrast < 4.5) bad.push([text.data.trim(), contrast]);
    }
    return bad;
"""
"""The texts whose contrast is less than WCAG 2.2 asks for: 4.5."""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_can_be_read_in_every_size_and_scheme(
    scheme: str, scene: Callable[..., Scene], tmp_path: Path
) -> None:
    page, now = scene(), clock.now()
    long = "a.very.long.module.name.without.an.end." * 4
    records = [
        Record(f"id-{state}", state, 2, long, "default", "host:7/1", started_at=now)
        for state in (State.QUEUED, State.STARTED, State.REVOKED, "PACKING")
    ]
    page.app.results.store_many(
        [
            *records,
            failure("bad", raised("x" * 300))._replace(name="shop.order"),
            failure("again", raised("y"))._replace(state=State.RETRY, finished_at=None),
            success("good", {"rows": ["tea"] * 50})._replace(name="shop.order"),
        ]
    )
    try:
        for width in (1200, 700, 375):
            look_like(page.browser, scheme, width)
            for name, address in (
                ("list", ""),
                ("success", "result?id=good"),
                ("failure", "result?id=bad"),
                ("workers", "workers"),
                ("nothing", "?q=nothing"),
                ("error", "?page=0"),
            ):
                page.open(address)
                assert run(page.browser, OUTSIDE) == [], (name, width)
                assert run(page.browser, CONTRASTS) == [], name
                if width != 700:
                    path = shoot(page.browser, f"{name}-{scheme}-{width}", tmp_path, width=width)
                    assert path.stat().st_size > 5_000
    finally:
        command(page.browser, "Emulation.clearDeviceMetricsOverride")
        command(page.browser, "Emulation.setEmulatedMedia", features=[])


def test_the_token_is_asked_for_and_remembered(tmp_path: Path, browser: webdriver.Chrome) -> None:
    (tmp_path / "jobs.py").write_text(textwrap.dedent(JOBS))
    url = {"UPSHOT_BROKER_URL": f"sqlite:///{tmp_path}/queue.db"}
    web = WebProcess(tmp_path, "--new-token", environment=url)
    bare, _, token = web.link.partition("?token=")
    try:
        browser.get(bare)
        comes_to_show(browser, "h1", "This page asks for its token")
        browser.find_element(By.NAME, "token").send_keys("wrong" + Keys.ENTER)
        comes_to_show(browser, ".login .notice", "That is not it.")
        browser.find_element(By.NAME, "token").send_keys(token + Keys.ENTER)
        comes_to_show(browser, "h1", "Results")
        assert (browser.title, browser.current_url) == ("Results · upshot", bare)
        assert run(browser, "return document.cookie") == ""
        browser.delete_all_cookies()
        browser.get(web.link)
        comes_to_show(browser, "h1", "Results")
        assert (browser.title, browser.current_url) == ("Results · upshot", bare)
    finally:
        browser.get("about:blank")
        web.kill()


@pytest.fixture
def elsewhere() -> Iterator[Callable[[str], str]]:
    """Serves pages with a link from another site, and returns their addresses."""
    links: list[str] = []

    class Pages(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(f'<a href="{links[-1]}">there</a>'.encode())

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Pages) as server:
        threading.Thread(target=server.serve_forever).start()

        def linking(link: str) -> str:
            links.append(link)
            return f"http://localhost:{server.server_port}/"

        yield linking
        server.shutdown()


def test_a_link_in_a_page_of_another_site_needs_the_token_once(
    tmp_path: Path, browser: webdriver.Chrome, elsewhere: Callable[[str], str]
) -> None:
    (tmp_path / "jobs.py").write_text(textwrap.dedent(JOBS))
    url = {"UPSHOT_BROKER_URL": f"sqlite:///{tmp_path}/queue.db"}
    web = WebProcess(tmp_path, "--new-token", environment=url)
    bare = web.link.partition("?")[0]
    try:
        for link, title in ((web.link, "Results"), (f"{bare}workers", "Workers and queues")):
            browser.get(elsewhere(link))
            browser.find_element(By.LINK_TEXT, "there").click()
            WebDriverWait(browser, SECONDS).until(lambda found: found.title.endswith("upshot"))
            assert browser.title == f"{title} · upshot"
    finally:
        browser.get("about:blank")
        web.kill()
