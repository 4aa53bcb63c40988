"""Valkey in the place of Redis: the same scenarios with its server, and TLS that HAProxy ends in front of it."""

import os
from pathlib import Path

import cluster
from cluster import server
from logins import PASSWORD, QUOTED, RIGHTS, are_let_in, certificates, is_refused
from processes import free_port, running

VALKEY = os.environ["VALKEY"]

HAPROXY = """\
defaults
    mode tcp
    timeout connect 5s
    timeout client 60s
    timeout server 60s
listen valkey
    bind 127.0.0.1:{port} ssl crt {file}
    server valkey 127.0.0.1:{to}
"""


async def valkey_carries_users_and_groups_across_processes():
    await cluster.redis_carries_users_and_groups_across_processes(VALKEY)


async def valkey_is_killed_under_load_and_comes_back():
    await cluster.redis_is_killed_under_load_and_comes_back(VALKEY)


async def valkey_forgets_a_process_that_is_killed():
    await cluster.redis_forgets_a_process_that_is_killed(VALKEY)


async def valkey_messages_that_are_too_long_are_passed_over():
    await cluster.redis_messages_that_are_too_long_are_passed_over(VALKEY)


async def valkey_sentinels_know_the_master_after_a_failover():
    await cluster.sentinels_know_the_master_after_a_failover(VALKEY)


async def valkey_wants_a_user_behind_tls():
    async with certificates() as (directory, root, certificate, key, _):
        lines = ["user default off", f'user chat on ">{PASSWORD}" {RIGHTS}', 'save ""']
        async with server(directory, "valkey", *lines, program=VALKEY) as (_, to):
            port, both = free_port(), directory / "both.pem"
            both.write_text(certificate.read_text() + Path(key).read_text())
            config = directory / "haproxy.cfg"
            config.write_text(HAPROXY.format(port=port, file=both, to=to))
            async with running("haproxy", "-db", "-f", config):
                await are_let_in(f"valkeys://chat:{QUOTED}@localhost:{port}", "--ca", root)
                wrong = f"valkeys://chat:{QUOTED}x@localhost:{port}"
                await is_refused(wrong, "--ca", root, cause="WRONGPASS")
