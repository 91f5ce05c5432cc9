"""What Orbax's threads log is kept back where we raise the same, and nothing else is."""

import asyncio
import gc
import logging

import pytest

from ssl_jax import quiet


@pytest.mark.parametrize("file", ["/site-packages/orbax/checkpoint/writes.py", "/site-packages/other/writes.py"])
def test_the_second_failure_of_a_save_is_not_logged_and_others_failures_are(caplog, file):
    """asyncio logs a task whose exception nobody asks for, with the file of its coroutine."""
    quiet.orbax()
    scope = {}
    exec(compile("async def write():\n    raise OSError(28, 'No space left on device')", file, "exec"), scope)

    async def save():
        asyncio.get_running_loop().create_task(scope["write"]())
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    with caplog.at_level(logging.ERROR, logger="asyncio"):
        asyncio.run(save())
        gc.collect()
    said = [record.getMessage() for record in caplog.records if "never retrieved" in record.getMessage()]
    assert len(said) == (0 if "orbax" in file else 1)
