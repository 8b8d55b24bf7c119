"""The smallest whole program: a task, a worker in threads of this process, and a result."""

from upshot import App

app = App()


@app.task
def add(x: int, y: int) -> int:
    """Return the sum."""
    return x + y


if __name__ == "__main__":
    with app.running(), add.delay(2, 3) as result:
        print(result.get(timeout=10))
