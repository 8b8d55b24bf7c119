"""Tasks for a worker of their own: `upshot -A tasks worker` in this folder starts it.

Without a URL, messages and results are in the file `.upshot/upshot.db` of the folder where a
program is started. The variable UPSHOT_BROKER_URL, or `App(broker=…)`, names another service.
"""

from upshot import App

app = App()


class OutOfStock(Exception):  # noqa: N818 - named for what happened
    """Fewer are left than were ordered."""

    def __init__(self, item: str, left: int) -> None:
        super().__init__(f"only {left} of {item} left")
        self.item = item
        self.left = left


@app.task
def add(x: int, y: int) -> int:
    """Return the sum."""
    return x + y


@app.task
def order(item: str, count: int) -> str:
    """Order something, of which there are never more than three."""
    if count > 3:
        raise OutOfStock(item, left=3)
    return f"{count} of {item}"
