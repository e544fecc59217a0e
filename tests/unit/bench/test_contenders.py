"""Configurations of the contenders: limits are scaled, and each host gets its slots."""

import subprocess
import sys

import pytest

from tests.bench.balancer.contenders import haproxy, litellm, nginx
from tests.bench.balancer.contenders.pannier import command
from tests.bench.balancer.figures import Outcome
from tests.bench.balancer.fleet import Fleet, counted_since
from tests.bench.balancer.reference import REFERENCE_HOSTS
from tests.bench.balancer.report import table
from tests.bench.balancer.scenarios.equal import steady_rate
from tests.bench.balancer.scenarios.failures import Troubles
from tests.bench.balancer.session import Closed


@pytest.fixture
def fleet(tmp_path):
    return Fleet(REFERENCE_HOSTS, 3, range(9001, 9009), tmp_path, 10.0)


def test_a_host_has_a_slot_per_model_that_it_can_hold(fleet, tmp_path):
    assert fleet.slot_counts == (2, 2, 2, 2, 1, 1, 1, 1)
    assert Fleet(REFERENCE_HOSTS, 1, range(8), tmp_path, 1.0).slot_counts == (1,) * 8


def test_haproxy_is_given_slots_only_when_tuned(fleet):
    tuned = haproxy.tuned_configuration(fleet, 9000, answer_timeout_seconds=600)
    assert "server host-0 127.0.0.1:9001 maxconn 2" in tuned
    assert "server host-7 127.0.0.1:9008 maxconn 1" in tuned
    assert "timeout queue 60000ms" in tuned
    plain = haproxy.default_configuration(fleet, 9000)
    assert "maxconn" not in plain
    assert "option http-no-delay" in plain
    assert "option http-no-delay" in tuned
    assert "timeout server 5000ms" in plain


def test_nginx_has_its_own_limits_scaled(fleet, tmp_path):
    plain = nginx.default_configuration(fleet, tmp_path, 9000)
    assert "proxy_read_timeout 6000ms" in plain
    assert "non_idempotent" not in plain
    tuned = nginx.tuned_configuration(fleet, tmp_path, 9000, read_timeout_seconds=600)
    assert "proxy_read_timeout 60000ms" in tuned
    assert tuned.count("max_conns") == 8


def test_litellm_knows_each_model_on_each_host(fleet):
    configured = litellm.configuration(fleet, "least-busy")
    assert len(configured["model_list"]) == 3 * 8
    assert configured["router_settings"]["timeout"] == 60.0


_MEASURES = """
import asyncio, runpy, sys, time
quicken = runpy.run_path(sys.argv[1], run_name="launcher")["_quicken"]
quicken(50.0)
from services.balancer.adapters import wire
from services.common import deadline, server, server_call

async def measure():
    loop, clock = asyncio.get_running_loop(), server.SystemClock()
    wall, fleet, shown = time.monotonic(), loop.time(), clock.monotonic()
    await clock.sleep(5.0)
    took = time.monotonic() - wall
    print((loop.time() - fleet) / took, (clock.monotonic() - shown) / took)
    print(loop.time() - fleet)
    server_call.set_deadline(2.0)
    print(deadline.remaining_seconds(), wire.seconds({"load_duration": 10**9}, "load_duration"))

server.uvloop.run(measure())
"""


def test_in_the_time_of_the_fleet_all_clocks_of_the_balancer_run_as_much_faster():
    launcher = command(50.0)[2]
    done = subprocess.run(
        [sys.executable, "-c", _MEASURES, launcher], capture_output=True, text=True, check=True
    )
    loop_ratio, clock_ratio, slept, left, load = map(float, done.stdout.split())
    assert loop_ratio == pytest.approx(50.0, rel=0.05)
    assert clock_ratio == pytest.approx(50.0, rel=0.05)
    assert slept >= 5.0
    assert 50.0 < left <= 100.0
    assert load == pytest.approx(50.0)


def test_in_life_the_balancer_is_started_as_users_start_it():
    assert command(1.0)[1:] == ("-m", "services.balancer")


def test_troubles_cover_the_time_from_their_begin_to_their_end():
    troubles = Troubles(
        storm=(10, 20), hang=(30, 40), refusal=(35, 50), crash=(60, 70), end_seconds=80
    )
    covered = [at for at in range(0, 80, 5) if troubles.covers(at)]
    assert covered == [10, 15, 30, 35, 40, 45, 60, 65]


def test_a_table_of_nothing_is_empty():
    assert table([]) == []


def test_what_a_host_counted_before_it_was_started_anew_is_not_subtracted():
    before = [{"loads": 2.0, "requests": 5.0}, {"loads": 4.0, "requests": 9.0}, {}]
    after = [{"loads": 3.0, "requests": 9.0}, {"loads": 1.0, "requests": 2.0}, {"loads": 1.0}]
    assert counted_since(before, after) == {"loads": 3.0, "requests": 6.0}


def test_the_steady_rate_leaves_out_the_beginning_and_the_end():
    # Ten seconds at 1 request per second after a load of three; two workers' tails at the end.
    ended = [3.5 + number for number in range(6)] + [9.99, 9.99, 9.99]
    closed = Closed(
        outcomes=tuple(
            Outcome(
                index=index,
                kind="chat",
                at_seconds=0.0,
                lag_seconds=0.0,
                first_seconds=at,
                total_seconds=at,
                stall_seconds=0.0,
                token_count=1,
                message_count=1,
            )
            for index, at in enumerate(ended)
        ),
        wall_seconds=1.0,
        contender_cpu_seconds=0.0,
        resident_bytes=(),
    )
    assert steady_rate(closed, 10.0) == pytest.approx(1.0)
