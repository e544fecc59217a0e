"""The stand-in as a process."""

import asyncio
import signal
import sys

import httpx


async def test_it_says_where_it_listens_and_ends_at_once_on_sigterm():
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "services.standin",
        "--port",
        "0",
        "--name",
        "standin-7",
        "--tokens-per-second",
        "1",
        stdout=asyncio.subprocess.PIPE,
    )
    line = (await process.stdout.readline()).decode().strip()
    name, url = line.split(" listening on ")
    assert name == "standin-7"
    async with httpx.AsyncClient(base_url=url) as client:
        body = {"model": "extractive-standin", "prompt": "One two three four five. One two?"}
        async with client.stream("POST", "/api/generate", json=body) as response:
            assert response.status_code == 200
            process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(2):
                assert await process.wait() == 0


async def test_an_address_in_use_is_named_without_a_traceback():
    server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    async with server:
        port = str(server.sockets[0].getsockname()[1])
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "services.standin", "--port", port, stderr=asyncio.subprocess.PIPE
        )
        _, errors = await process.communicate()
    assert process.returncode == 1
    assert b"address already in use" in errors
    assert b"Traceback" not in errors


async def test_a_rate_of_zero_is_refused():
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "services.standin",
        "--tokens-per-second",
        "0",
        stderr=asyncio.subprocess.PIPE,
    )
    _, errors = await process.communicate()
    assert process.returncode == 2
    assert b"must be positive" in errors


async def test_a_profile_gives_it_synthetic_models_only(tmp_path):
    profile = tmp_path / "profile.toml"
    profile.write_text('builtin_models = false\n[[models]]\nname = "big"\nload_seconds = 0\n')
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "services.standin",
        *("--port=0", "--profile", str(profile), "--speed=2", "--time-scale=20"),
        stdout=asyncio.subprocess.PIPE,
    )
    url = (await process.stdout.readline()).decode().split()[-1]
    async with httpx.AsyncClient(base_url=url) as client:
        body = {"model": "big", "prompt": "<<tokens=400>>", "stream": False}
        answer = (await client.post("/api/generate", json=body)).json()
    process.terminate()
    await process.wait()
    assert answer["eval_count"] == 400
    assert answer["eval_duration"] >= 400 / (200 * 2 * 20) * 1e9
