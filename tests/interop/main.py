"""Plays the scenarios, one after the other, and says how each of them went."""

import asyncio
import os
import signal
import sys
import time
import traceback

import acme
import applications
import browser
import cluster
import compared
import conversations
import doctored
import gateways
import handshakes
import howto
import http2_servers
import imported
import kustomize
import logins
import metrics
import page
import pages
import redial
import php
import ports
import renewal
import rollback
import rollout
import schema
import servers
import takeover
import tapped
import trust
import upgrades
import valkey

SCENARIO_TIME = 60  # seconds; only one that hangs takes so long
LONG = {rollout.a_rollout_closes_each_socket_at_most_once_and_refuses_none: 200}  # it waits as a rollout does

SCENARIOS = [
    handshakes.openssl_sees_the_certificate_of_the_name_it_asks_for,
    handshakes.openssl_resumes_its_sessions,
    handshakes.openssl_renews_its_keys,
    handshakes.openssl_is_refused_another_handshake,
    conversations.python_clients_talk_to_python_backends,
    conversations.python_clients_talk_to_node_backends,
    conversations.node_clients_talk_to_python_backends,
    conversations.node_clients_talk_to_node_backends,
    conversations.python_and_node_clients_compress_as_far_as_the_gateway,
    conversations.a_quiet_node_client_answers_the_gateways_pings,
    renewal.python_clients_notice_nothing_of_a_renewal,
    acme.pebble_issues_by_tls_alpn_01,
    acme.pebble_issues_by_http_01,
    acme.pebble_issues_by_dns_01,
    acme.pebble_renews_in_time_and_is_missed,
    acme.pebble_validates_two_gateways_of_which_one_orders,
    acme.pebble_issues_on_demand,
    acme.pebble_is_asked_for_nothing_as_long_as_the_disk_is_full,
    acme.pebble_issues_for_one_command,
    redial.python_backends_are_restarted_under_their_clients,
    redial.node_backends_are_restarted_under_their_clients,
    takeover.python_clients_notice_nothing_of_a_takeover,
    takeover.a_node_client_notices_nothing_of_a_takeover,
    takeover.libcurl_notices_nothing_of_a_takeover,
    takeover.chromium_notices_nothing_of_a_takeover,
    takeover.openssl_notices_nothing_of_a_takeover,
    takeover.curl_ends_its_download_from_the_old_process,
    rollback.a_rollback_and_its_end_are_noticed_by_no_session,
    rollout.a_rollout_closes_each_socket_at_most_once_and_refuses_none,
    pages.curl_gets_files_from_nginx_over_http1,
    pages.curl_gets_files_from_nginx_over_http2,
    pages.curl_posts_to_nginx_over_http1,
    pages.curl_posts_to_nginx_over_http2,
    pages.curl_keeps_its_connection_over_http1,
    pages.curl_keeps_its_connection_over_http2,
    pages.curl_upgrades_by_hand,
    pages.curl_is_told_to_use_https,
    http2_servers.nginx_is_asked_over_http2,
    http2_servers.node_serves_requests_over_http2,
    http2_servers.node_serves_websockets_over_http2,
    http2_servers.hypercorn_serves_requests_and_websockets_behind_tls,
    http2_servers.apache_serves_requests_and_websockets_over_http2,
    http2_servers.apache_serves_requests_over_http2_and_websockets_over_http1,
    http2_servers.apache_serves_requests_and_websockets_over_http1,
    http2_servers.grpc_calls_of_all_kinds_pass,
    imported.nginx_and_the_gateway_by_its_file_answer_alike,
    imported.apache_and_the_gateway_by_its_file_answer_alike,
    compared.nginx_and_the_gateway_by_its_page_answer_alike,
    compared.apache_and_the_gateway_by_its_page_answer_alike,
    compared.haproxy_and_the_gateway_by_its_page_answer_alike,
    compared.caddy_and_the_gateway_by_its_page_answer_alike,
    servers.nginx_is_reached_over_tls_1_3,
    servers.nginx_is_reached_over_tls_1_2,
    servers.haproxy_knows_the_client_by_version_1,
    servers.haproxy_knows_the_client_by_version_2,
    ports.source_addresses_hold_more_sockets_than_one_has_ports,
    servers.mqtt_clients_talk_through_mosquitto,
    gateways.a_ticket_of_one_gateway_resumes_at_another,
    gateways.a_gateway_is_drained_and_no_client_is_refused,
    howto.nginx_passes_websockets_on_to_a_unix_socket,
    howto.haproxy_passes_websockets_on_to_a_unix_socket,
    howto.socket_io_polls_and_upgrades_at_one_of_two_servers,
    howto.signalr_negotiates_and_opens_at_one_of_two_servers,
    howto.signalr_reads_event_streams,
    howto.signalr_falls_back_to_polling,
    howto.signalr_skips_the_negotiation_where_nothing_is_sticky,
    howto.signalr_needs_one_of_the_two,
    howto.phoenix_joins_over_a_websocket,
    howto.phoenix_polls,
    howto.phoenix_refuses_pages_of_other_origins,
    howto.graphql_subscriptions_run_beside_queries,
    howto.django_channels_serves_requests_and_websockets,
    howto.jupyter_runs_code_in_a_kernel,
    php.php_serves_a_site_over_http1,
    php.php_serves_a_site_over_http2,
    cluster.redis_carries_users_and_groups_across_processes,
    cluster.redis_is_killed_under_load_and_comes_back,
    cluster.redis_forgets_a_process_that_is_killed,
    cluster.redis_messages_that_are_too_long_are_passed_over,
    cluster.sentinels_know_the_master_after_a_failover,
    cluster.a_php_script_publishes_to_a_group,
    cluster.nats_carries_users_and_groups_across_processes,
    cluster.nats_is_killed_under_load_and_comes_back,
    cluster.nats_misses_a_process_that_is_killed,
    cluster.nats_messages_that_are_too_long_are_passed_over,
    valkey.valkey_carries_users_and_groups_across_processes,
    valkey.valkey_is_killed_under_load_and_comes_back,
    valkey.valkey_forgets_a_process_that_is_killed,
    valkey.valkey_messages_that_are_too_long_are_passed_over,
    valkey.valkey_sentinels_know_the_master_after_a_failover,
    valkey.valkey_wants_a_user_behind_tls,
    logins.redis_is_spoken_to_over_tls,
    logins.nats_is_spoken_to_over_tls,
    logins.redis_wants_a_user_and_to_see_a_certificate,
    logins.sentinels_have_users_of_their_own,
    logins.nats_lets_users_and_tokens_in,
    logins.nats_lets_nkeys_in,
    logins.nats_lets_jwts_in,
    logins.nats_wants_to_see_a_certificate,
    upgrades.docker_execs_through_an_upgrade,
    upgrades.kubectl_execs_through_an_upgrade,
    kustomize.kustomize_builds_what_fits_together,
    kustomize.kustomize_takes_an_overlay,
    metrics.promtool_takes_the_alerts,
    metrics.prometheus_finds_what_the_dashboard_and_the_alerts_ask_for,
    tapped.wireshark_reads_a_tap,
    tapped.only_root_and_the_gateways_user_tap,
    doctored.the_doctor_finds_what_is_wrong_with_a_machine,
    doctored.the_doctor_misses_the_ipv6_address_of_a_name,
    schema.jsonschema_takes_the_examples_and_refuses_mistakes,
    browser.chromium_uses_the_console_over_http1,
    browser.chromium_uses_the_console_over_http2,
    browser.chromium_talks_to_a_python_backend_over_http1,
    browser.chromium_talks_to_a_python_backend_over_http2,
    page.chromium_reads_the_page_and_nothing_runs_in_it,
    trust.curl_trusts_what_wssgate_trust_has_signed,
    trust.openssl_and_chromium_trust_what_wssgate_trust_has_signed,
    browser.novnc_shows_the_screen_of_a_vnc_server,
    browser.novnc_asks_for_a_password_and_shows_the_screen,
    browser.novnc_shows_the_screen_through_websockify,
]
# Those of the script `applications`.
SCENARIOS += [scenario for place, found in applications.APPLICATIONS.items() if place in os.environ for scenario in found]


async def main(words):
    task = asyncio.current_task()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    names = {scenario: scenario.__name__.replace("_", " ") for scenario in SCENARIOS}
    chosen = [s for s in SCENARIOS if not words or any(word in names[s] for word in words)]
    failures = {}
    for scenario in chosen:
        started = time.monotonic()
        try:
            async with asyncio.timeout(LONG.get(scenario, SCENARIO_TIME)):
                await scenario()
            verdict = "ok"
        except Exception as failure:
            failures[names[scenario]] = failure
            verdict = f"FAILED ({reason(failure)})"
        print(f"{names[scenario]} ({time.monotonic() - started:.1f} s) ... {verdict}", flush=True)
    for name, failure in failures.items():
        print(f"\n--- {name}\n{''.join(traceback.format_exception(failure))}")
    print(f"\n{len(chosen) - len(failures)} of {len(chosen)} scenarios are ok")
    return 0 if chosen and not failures else 1


def reason(failure):
    while isinstance(failure, ExceptionGroup):
        failure = failure.exceptions[0]
    return (str(failure) or type(failure).__name__).splitlines()[0]


if __name__ == "__main__":
    try:
        sys.exit(asyncio.run(main(sys.argv[1:])))
    except (KeyboardInterrupt, asyncio.CancelledError):
        sys.exit("interrupted")
