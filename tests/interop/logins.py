"""Processes of wss-service log in at their engine: over TLS, by users, passwords, tokens, keys, JWTs and certificates."""

from contextlib import asynccontextmanager
from pathlib import Path

import nkeys
from cluster import PASSWORD, Nats, answer, chat, enter, hears, server, three, until
from pki import Pki
from processes import free_port, running, same, workplace

QUOTED = PASSWORD.replace("%", "%25")


async def are_let_in(engine, *options):
    async with three(engine, *options) as (_, ann, bob, _):
        await until(ann, "/who eve", "eve is here: true; 3 in tea")
        await ann.send("hello")
        await hears(bob, "ann: hello")


async def is_refused(engine, *options, cause, secrets=(PASSWORD, QUOTED)):
    """The log says why and no secret, and sessions of the same process hear each other."""
    async with chat(engine, *options) as alone, enter(alone, "ann") as ann, enter(alone, "bob") as bob:
        await alone.said(cause)
        await ann.send("hello")
        for client in (ann, bob):
            await hears(client, "ann: hello")
        await hears(ann, "heard in this process only: the engine of the cluster is away")
        same("who is elsewhere", await answer(bob, "/who eve"), "not known: the engine of the cluster is away")
    said = "\n".join(map(str, alone.lines))
    same("secrets in the log", [secret for secret in secrets if secret in said], [])


@asynccontextmanager
async def nats(directory, config):
    """A NATS with this configuration. Yields its address."""
    port = free_port()
    file = directory / "nats.conf"
    file.write_text(f"listen: 127.0.0.1:{port}\n{config}")
    async with running("nats-server", "-c", file) as child:
        await child.said("Server is ready")
        yield f"localhost:{port}"


VIOLATION = ": the engine says: Authorization Violation"


async def nats_lets_users_and_tokens_in():
    async with workplace() as directory:
        directory = Path(directory)
        # With no more rights than the documentation says.
        rights = '["chat.>", "_INBOX.>"]'
        user = f'user: chat, password: "{PASSWORD}", permissions: {{ publish: {rights}, subscribe: {rights} }}'
        async with nats(directory, f"authorization {{ users: [ {{ {user} }} ] }}\n") as address:
            await are_let_in(f"nats://chat:{QUOTED}@{address}", "--prefix", "chat.")
            await is_refused(f"nats://chat:{QUOTED}x@{address}", cause=VIOLATION)
            await is_refused(f"nats://{address}", cause=VIOLATION)
        async with nats(directory, f'authorization {{ token: "{PASSWORD}" }}\n') as address:
            await are_let_in(f"nats://{QUOTED}@{address}")
            await is_refused(f"nats://{QUOTED}x@{address}", cause=VIOLATION)


async def nats_lets_nkeys_in():
    async with workplace() as directory:
        directory = Path(directory)
        key, other = [await nkeys.Key().make(directory, name, nkeys.USER) for name in ("user", "other")]
        seed, stranger = directory / "user.nk", directory / "other.nk"
        seed.write_text(f"{key.seed}\n")
        stranger.write_text(f"{other.seed}\n")
        async with nats(directory, f"authorization {{ users: [ {{ nkey: {key.public} }} ] }}\n") as address:
            url = f"nats://{address}"
            await are_let_in(url, "--credentials", seed)
            await is_refused(url, "--credentials", stranger, cause=VIOLATION, secrets=[other.seed])
            damaged = directory / "damaged.nk"
            damaged.write_text(key.seed[:-1] + ("A" if key.seed[-1] != "A" else "B"))
            await is_refused(url, "--credentials", damaged, cause="no seed of an nkey", secrets=[key.seed[:-1]])
            await is_refused(url, "--credentials", directory / "missing.nk", cause="missing.nk: No such file")


async def nats_lets_jwts_in():
    async with workplace() as directory:
        directory = Path(directory)
        operator = await nkeys.Key().make(directory, "operator", nkeys.OPERATOR)
        account = await nkeys.Key().make(directory, "account", nkeys.ACCOUNT)
        user = await nkeys.Key().make(directory, "user", nkeys.USER)
        limits = {"subs": -1, "data": -1, "payload": -1}
        more = {"imports": -1, "exports": -1, "wildcards": True, "conn": -1, "leaf": -1}
        operator_jwt = await operator.jwt(operator, "operator", type="operator")
        account_jwt = await operator.jwt(account, "account", type="account", limits=limits | more)
        user_jwt = await account.jwt(user, "chat", type="user", **limits)
        forged_jwt = await user.jwt(user, "chat", type="user", **limits)
        good, forged = directory / "chat.creds", directory / "forged.creds"
        good.write_text(nkeys.creds(user_jwt, user))
        forged.write_text(nkeys.creds(forged_jwt, user))
        config = f"""\
operator: {operator_jwt}
resolver: MEMORY
resolver_preload: {{ {account.public}: {account_jwt} }}
"""
        async with nats(directory, config) as address:
            url = f"nats://{address}"
            await are_let_in(url, "--credentials", good)
            await is_refused(url, "--credentials", forged, cause=VIOLATION, secrets=[user.seed, forged_jwt])
            await is_refused(url, cause=VIOLATION)


@asynccontextmanager
async def certificates():
    """A directory with certificates of a server and of a client."""
    async with workplace() as directory:
        directory = Path(directory)
        pki = Pki(directory / "pki")
        await pki.make()
        await pki.issue(directory / "certs", "server", "localhost", "127.0.0.1")
        await pki.issue(directory / "certs", "client", "chat")
        certs = directory / "certs"
        shown = ["--certificate", certs / "client.crt", "--key", certs / "client.key"]
        yield directory, pki.root, certs / "server.crt", certs / "server.key", shown


async def nats_wants_to_see_a_certificate():
    async with certificates() as (directory, root, certificate, key, shown):
        config = f'tls {{ cert_file: "{certificate}", key_file: "{key}", ca_file: "{root}", verify: true }}\n'
        config += f'authorization {{ token: "{PASSWORD}" }}\n'
        async with nats(directory, config) as address:
            # The server says that it wants TLS.
            url = f"nats://{QUOTED}@{address}"
            await are_let_in(url, "--ca", root, *shown)
            await is_refused(url, "--ca", root, cause="cluster away")
            await is_refused(url, *shown, cause=": TLS: ")
            await is_refused(f"tls://{QUOTED}x@{address}", "--ca", root, *shown, cause=VIOLATION)


async def redis_is_spoken_to_over_tls():
    async with workplace() as directory:
        directory = Path(directory)
        pki = Pki(directory / "pki")
        await pki.make()
        await pki.issue(directory / "certs", "redis", "localhost")
        certificate = directory / "certs/redis.crt"
        config = directory / "redis.conf"
        port = free_port()
        config.write_text(f"""\
port 0
bind 127.0.0.1
tls-port {port}
tls-cert-file {certificate}
tls-key-file {certificate.with_suffix(".key")}
tls-auth-clients no
requirepass "{PASSWORD}"
save ""
""")
        url = f"rediss://:{PASSWORD.replace('%', '%25')}@localhost:{port}/2"
        async with running("redis-server", config) as child:
            await child.said("eady to accept connections")
            async with three(url, "--ca", pki.root) as (_, ann, bob, _):
                await until(ann, "/who eve", "eve is here: true; 3 in tea")
                await ann.send("hello")
                await hears(bob, "ann: hello")
            async with chat(url) as distrusting, enter(distrusting, "ann") as ann:
                found = await answer(ann, "/who eve")
                same("without the authority", found, "not known: the engine of the cluster is away")


async def nats_is_spoken_to_over_tls():
    async with workplace() as directory:
        directory = Path(directory)
        pki = Pki(directory / "pki")
        await pki.make()
        await pki.issue(directory / "certs", "nats", "localhost")
        certificate = directory / "certs/nats.crt"
        options = ["--tls", "--tlscert", certificate, "--tlskey", certificate.with_suffix(".key")]
        nats = Nats("tls", "localhost", options)
        async with nats.running(), three(nats.url, "--ca", pki.root) as (_, ann, bob, _):
            await until(ann, "/who eve", "eve is here: true; 3 in tea")
            await ann.send("hello")
            await hears(bob, "ann: hello")
            async with chat(nats.url) as distrusting, enter(distrusting, "tom") as tom:
                found = await answer(tom, "/who eve")
                same("without the authority", found, "not known: the engine of the cluster is away")


# What the documentation says that a user of Redis needs.
RIGHTS = (
    "resetchannels &chat:* ~chat:process* -@all +hello +role +publish +subscribe +unsubscribe"
    " +hset +hsetnx +hdel +hmget +del +pexpire +sadd +srem +srandmember"
)


async def redis_wants_a_user_and_to_see_a_certificate():
    async with certificates() as (directory, root, certificate, key, shown):
        lines = [
            "port 0",
            f"tls-cert-file {certificate}",
            f"tls-key-file {key}",
            f"tls-ca-cert-file {root}",  # and tls-auth-clients is `yes`, if nothing is said
            "user default off",
            f'user chat on ">{PASSWORD}" {RIGHTS}',
            'save ""',
        ]
        async with server(directory, "redis", *lines, port_is="tls-port") as (_, port):
            url = f"rediss://chat:{QUOTED}@localhost:{port}"
            await are_let_in(url, "--ca", root, *shown)
            await is_refused(url, "--ca", root, cause="cluster away")
            wrong = f"rediss://chat:{QUOTED}x@localhost:{port}"
            await is_refused(wrong, "--ca", root, *shown, cause="WRONGPASS")
            # Of the channels of others it has no right to hear.
            await is_refused(url, "--ca", root, *shown, "--prefix", "other:", cause="NoPerm")


async def sentinels_have_users_of_their_own():
    other = f"{PASSWORD}&2"
    other_quoted = other.replace("%", "%25").replace("&", "%26")
    secrets = [PASSWORD, QUOTED, other, other_quoted]
    async with certificates() as (directory, root, certificate, key, _):
        tls = [
            "port 0",
            f"tls-cert-file {certificate}",
            f"tls-key-file {key}",
            f"tls-ca-cert-file {root}",
            "tls-auth-clients no",
            "tls-replication yes",
        ]
        lines = [*tls, f'requirepass "{PASSWORD}0"', f'user chat on ">{PASSWORD}" {RIGHTS}', 'save ""']
        async with server(directory, "redis", *lines, port_is="tls-port") as (_, port):
            watch = [
                *tls,
                f"sentinel monitor chat 127.0.0.1 {port} 1",
                f'sentinel auth-pass chat "{PASSWORD}0"',
                f'requirepass "{other}0"',
                f'user watcher on ">{other}" -@all +hello +sentinel|get-master-addr-by-name',
            ]
            started = server(directory, "sentinel", *watch, sentinel=True, port_is="tls-port")
            async with started as (_, sentinel_port):
                at = f"127.0.0.1:{sentinel_port}/chat"
                watcher = f"?sentinel_username=watcher&sentinel_password={other_quoted}"
                scheme = "rediss+sentinel://"
                await are_let_in(f"{scheme}chat:{QUOTED}@{at}{watcher}", "--ca", root)
                await are_let_in(f"{scheme}chat:{QUOTED}@{at}?sentinel_password={other_quoted}0", "--ca", root)
                for url, cause in [
                    (f"{scheme}chat:{QUOTED}@{at}", "the last one said: 127.0.0.1:"),
                    (f"{scheme}chat:{QUOTED}@{at}", "NOAUTH"),
                    (f"{scheme}chat:{QUOTED}@{at}{watcher}x", "WRONGPASS"),
                    (f"{scheme}chat:{QUOTED}x@{at}{watcher}", "WRONGPASS"),
                ]:
                    await is_refused(url, "--ca", root, cause=cause, secrets=secrets)
