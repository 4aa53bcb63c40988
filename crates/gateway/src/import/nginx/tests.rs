//! Configurations of nginx and what becomes of them. Each result is also one that `wssgate check` takes.

use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::config::Config;
use crate::import::sources::Memory;

/// The configuration, and the remarks.
pub(super) fn import(text: &str) -> (String, Vec<String>) {
    let mut memory = Memory::of(&[("/etc/nginx/nginx.conf", text)]);
    let (site, book) =
        read(&mut memory, Path::new("/etc/nginx/nginx.conf"), "/etc/nginx".into(), "/usr/share/nginx".into())
            .unwrap();
    let counts = book.counts();
    let remarks =
        book.into_remarks().iter().map(|remark| format!("{}: {}", remark.at, remark.what)).collect();
    assert_eq!(
        counts.directives,
        counts.keys + counts.by_itself + counts.commented,
        "something is left out: {text}"
    );
    (site.text(), remarks)
}

/// Of a file with at most 100 directives, of which nothing has been said yet.
pub(super) fn context<'a>() -> Context<'a> {
    Context {
        book: Book::new(100),
        site: Site::default(),
        upstreams: Upstreams::default(),
        zones: HashMap::new(),
        places: Places { conf: "/etc/nginx".into(), prefix: "/usr/share/nginx".into() },
        unread: HashMap::new(),
    }
}

/// What a server with these lines becomes, without comments; it has to be a configuration.
#[track_caller]
fn server(lines: &str, expect: &[&str]) -> (String, Vec<String>) {
    file(&format!("server {{\nlisten 80;\n{lines}\n}}"), expect)
}

#[track_caller]
fn file(text: &str, expect: &[&str]) -> (String, Vec<String>) {
    let (toml, remarks) = import(text);
    let (_, problems) = Config::parse(Path::new("test.toml"), &toml);
    assert_eq!(problems, [], "{toml}");
    let keys = toml.lines().filter(|line| !line.starts_with('#'));
    let bare: String = keys
        .map(|line| line.split(" # nginx.conf:").next().unwrap())
        .fold(String::new(), |text, line| text + line + "\n");
    for expect in expect {
        assert!(bare.contains(expect), "{toml}\n  lacks\n{expect}");
    }
    (toml, remarks)
}

#[track_caller]
fn remarked(remarks: &[String], expect: &[&str]) {
    assert_eq!(remarks.len(), expect.len(), "{remarks:#?}");
    for (remark, expect) in remarks.iter().zip(expect) {
        assert!(remark.contains(expect), "{remark} lacks {expect}");
    }
}

#[test]
fn locations_become_paths() {
    server(
        "location / { proxy_pass http://127.0.0.1:1; }
         location = /a { return 204; }
         location ^~ /b/ { return 403; }
         location /c { return 200 c; }",
        &[
            "path = \"/\"\nproxy = \"http://127.0.0.1:1\"",
            "path_exact = \"/a\"\nrespond = 204",
            "path = \"/b/\"\nrespond = 403",
            "path = \"/c\"\nrespond = ",
        ],
    );
}

/// With a pattern that may have paths of a prefix, the prefix becomes a pattern behind it.
#[test]
fn patterns_come_before_prefixes_as_in_nginx() {
    let (toml, _) = server(
        "location / { return 200 rest; }
         location /long/er { return 200 longer; }
         location /long { return 200 long; }
         location ^~ /stop { return 200 stop; }
         location ~* \\.png$ { return 200 png; }
         location ~ ^/one$ { return 200 one; }",
        &["path = \"/stop\"", "path_exact = \"/one\""],
    );
    let order: Vec<&str> = toml.lines().filter(|line| line.starts_with("path_regex")).collect();
    let order: Vec<&str> = order.iter().map(|line| line.split(" # ").next().unwrap()).collect();
    assert_eq!(
        order,
        [
            "path_regex = \"/stop.*\"",
            "path_regex = '(?i).*\\.png'",
            "path_regex = \"/long/er.*\"",
            "path_regex = \"/long.*\"",
            "path_regex = \"/.*\""
        ]
    );
    server(
        "location /far { return 200 far; }\nlocation ~ ^/near/(.*)$ { return 301 /new/$1; }",
        &["path = \"/far\"", "path_regex = \"/near/(.*)\"\nredirect = { to = \"/new/{1}\", status = 301 }"],
    );
}

#[test]
fn paths_are_spelled_as_requests_have_them() {
    server(
        "location '/a b/' { proxy_pass http://h:1/; }
         location /caf\u{e9} { return 200 x; }
         location = /100% { return 204; }
         location \"/{x}\" { return 200 x; }
         location /to/ { proxy_pass 'http://h:1/c d/%20\u{e9}/'; }",
        &[
            "path = \"/a%20b/\"\nproxy = \"http://h:1\"\nstrip_prefix = \"/a%20b\"",
            "path_exact = \"/a%20b\"\nredirect = { to = \"/a%20b/{query}\"",
            "path = \"/caf%C3%A9\"",
            "path_exact = \"/100%25\"\nrespond = 204",
            "path_regex = '/(?:\\{|%7B)x(?:\\}|%7D).*'",
            "rewrite = \"/c%20d/%20%C3%A9{rest}\"",
        ],
    );
    let (_, remarks) =
        server("location '/a;b' { return 200 x; } location ~ '^/[a b]$' { return 200 x; }", &[]);
    remarked(&remarks, &["which a class such as [a b] can't have", "its requests go to another route"]);
}

#[test]
fn files_are_not_served_where_a_server_was_asked() {
    let (toml, remarks) = server(
        "root /w; location / { } location ~ ^/(?!a).*\\.py$ { uwsgi_pass 127.0.0.1:1; }",
        &["path_regex = '/.*\\.py'\nrespond = 501", "path_regex = \"/.*\"\nfiles.directory = \"/w\""],
    );
    remarked(&remarks, &["it is for a server, so the pattern here takes more paths than in nginx"]);
    assert!(toml.find(".py'") < toml.find("files.directory"), "{toml}");
}

/// `/api` is also `/apifoo` in nginx: that is told, and where a rule of access or a pattern needs it, it is so.
#[test]
fn a_prefix_may_end_within_a_segment() {
    let (_, remarks) = server(
        "location / { return 200 rest; } location /api { return 200 api; }",
        &["path = \"/\"\n", "path = \"/api\"\n"],
    );
    remarked(
        &remarks,
        &["whole segments here: paths such as /apix, which nginx has here, too, are for the location /"],
    );
    for (lines, expect) in [
        (
            "location / { return 200 rest; } location /api { deny 10.0.0.1; return 200 api; }",
            &["path = \"/api\"\n", "path_regex = \"/api.*\"\n", "path_regex = \"/.*\"\n"][..],
        ),
        (
            "location / { return 200 rest; } location ^~ /api { return 200 api; } location ~ php { return 200 php; }",
            &[
                "path = \"/api\"\n",
                "path_regex = \"/api.*\"\n",
                "path_regex = \".*php.*\"\n",
                "path_regex = \"/.*\"\n",
            ],
        ),
    ] {
        let (_, remarks) = server(lines, expect);
        assert_eq!(remarks, [""; 0], "{lines}");
    }
}

/// What has other patterns than the paths around it stands in front of them.
#[test]
fn locations_in_others_have_patterns_of_their_own() {
    let (toml, _) = server(
        "location / { return 200 rest; }
         location ^~ /pma { location ~ \\.php$ { return 200 inner; } return 200 pma; }
         location ^~ /pma/free/ { return 200 free; }
         location ~ \\.php$ { return 200 outer; }",
        &["path = \"/pma/free/\""],
    );
    let order: Vec<&str> = toml
        .lines()
        .filter_map(|line| line.strip_prefix("path_regex = "))
        .map(|line| line.split(" # ").next().unwrap())
        .collect();
    assert_eq!(order, [r"'/pma.*\.php'", "\"/pma.*\"", r"'.*\.php'", "\"/.*\""]);
}

#[test]
fn a_path_and_what_is_below_it_are_two_locations() {
    let (toml, _) = server(
        "location /a { return 301 /a/; }\nlocation ^~ /a/ { proxy_pass http://h:1; }\nlocation = /b { return 204; }
         location /b/ { proxy_pass http://h:1; }",
        &["path_exact = \"/a\"\nredirect", "path = \"/a/\"\nproxy", "path_exact = \"/b\"\nrespond = 204"],
    );
    assert_eq!(toml.matches("path_exact").count(), 2, "{toml}");
}

#[test]
fn servers_get_the_paths_that_nginx_sends() {
    for (location, pass, expect) in [
        ("/a/", "http://h:1/", "strip_prefix = \"/a\""),
        ("/a/", "http://h:1/b/", "rewrite = \"/b{rest}\""),
        ("/a/", "http://h:1", "proxy = \"http://h:1\"\n"),
        ("/a/", "http://h:1/a/", "proxy = \"http://h:1\"\n"),
        ("/", "http://h:1/b/", "rewrite = \"/b{rest}\""),
        ("= /a", "http://h:1/b", "rewrite = \"/b\""),
        ("/a/", "http://unix:/run/a.sock:/", "proxy = \"unix:/run/a.sock\"\nstrip_prefix = \"/a\""),
        ("/a/", "http://h:1$request_uri", "proxy = \"http://h:1\"\n"),
        ("~ ^/a/(.*)$", "http://h:1/b/$1$is_args$args", "rewrite = \"/b/{1}\""),
        ("/a/", "https://h/", "proxy = \"https://h\""),
    ] {
        server(&format!("location {location} {{ proxy_pass {pass}; }}"), &[expect]);
    }
    let (toml, _) = server(
        "location /a/ { proxy_pass http://h:1/a/; }",
        &["redirect = { to = \"/a/{query}\", status = 301 }"],
    );
    assert!(!toml.contains("rewrite"), "{toml}");
    server(
        "location /a/ { rewrite ^/a/(.*)$ /$1 break; proxy_pass http://h:1; }",
        &["strip_prefix = \"/a\""],
    );
    server(
        "set $up app; set $port 8123; location / { proxy_pass http://$up:$port; }",
        &["proxy = \"http://app:8123\""],
    );
    let (_, remarks) = server("location / { proxy_pass http://$arg_x; }", &["respond = 501"]);
    remarked(&remarks, &["nginx.conf:3: proxy_pass http://$arg_x: $arg_x has no counterpart here"]);
}

#[test]
fn fields_of_a_block_take_the_place_of_those_around_it() {
    let (toml, _) = server(
        "proxy_set_header X-Outer 1; add_header X-Out 1 always;
         location / { proxy_set_header Host $host; proxy_set_header X-Inner $scheme-$remote_addr; proxy_pass http://h:1; }
         location /b { proxy_pass http://h:2; add_header X-In 2 always; }",
        &[
            "request_headers.set.X-Inner = \"http-{client}\"\nresponse_headers.add.X-Out = \"1\"",
            "request_headers.set.X-Outer = \"1\"\nrequest_headers.set.Host = \"h:2\"\nresponse_headers.add.X-In = \"2\"",
        ],
    );
    assert_eq!(toml.matches("X-Outer").count(), 1, "{toml}");
    let (_, remarks) = server(
        "location / { proxy_pass http://h:1; proxy_set_header X-A $foo; proxy_set_header Accept-Encoding '';
         proxy_hide_header X-B; add_header X-B b always; add_header X-C c always; add_header X-C d always; }",
        &[
            "request_headers.remove = [\"X-A\", \"Accept-Encoding\"]",
            "response_headers.remove = [\"X-B\"]",
            "response_headers.set.X-B = \"b\"",
            "response_headers.add.X-C = [\"c\", \"d\"]",
        ],
    );
    remarked(&remarks, &["proxy_set_header X-A $foo: $foo has no counterpart"]);
}

#[test]
fn access_is_not_wider_than_before() {
    server(
        "location / { allow 10.0.0.0/8; allow ::1; deny all; proxy_pass http://h:1; }",
        &["access.allow = [\"10.0.0.0/8\", \"::1\"]", "access.max_body = \"1MiB\""],
    );
    server("location / { deny all; proxy_pass http://h:1; }", &["respond = 403"]);
    server(
        "client_max_body_size 0; auth_basic 'The \"site\"'; auth_basic_user_file htpasswd; location / { proxy_pass http://h:1; }",
        &[
            "access.basic.file = \"/etc/nginx/htpasswd\"",
            "access.basic.realm = \"The site\"",
            "access.basic.pass_password = true",
        ],
    );
    let (_, remarks) = server(
        "location / { auth_basic x; proxy_pass http://h:1; }",
        &["access.deny = [\"0.0.0.0/0\", \"::/0\"]"],
    );
    remarked(&remarks, &["nobody is let in until access.basic names a file"]);
    let (_, remarks) =
        server("satisfy any; location / { allow 10.0.0.1; deny 10.0.0.0/8; proxy_pass http://h:1; }", &[]);
    remarked(&remarks, &["deny counts more than allow", "satisfy any: every check"]);
    file(
        "limit_req_zone $binary_remote_addr zone=a:1m rate=10r/s; limit_conn_zone $binary_remote_addr zone=b:1m;
         server { location / { limit_req zone=a burst=5; limit_conn b 3; proxy_pass http://h:1; } }",
        &["access.requests = \"10/s\"", "access.sessions = 3"],
    );
    server(
        "location / { auth_request /auth; auth_request_set $u $upstream_http_remote_user; proxy_set_header Remote-User $u;
         proxy_pass http://h:1; }
         location = /auth { internal; proxy_pass http://127.0.0.1:9/verify; }",
        &["access.forward.url = \"http://127.0.0.1:9/verify\"", "access.forward.copy = [\"Remote-User\"]", "respond = 404"],
    );
}

#[test]
fn answers_of_nginx_itself() {
    for (lines, expect) in [
        (
            "return 301 https://$host$request_uri;",
            "redirect = { to = \"https://{host}{path}{query}\", status = 301 }",
        ),
        ("return https://x.test;", "redirect = { to = \"https://x.test\", status = 302 }"),
        ("return 444;", "respond = 403"),
        (
            "location / { default_type application/json; return 200 '{\"a\":\"$uri\"}'; }",
            "respond = { status = 200, content_type = \"application/json\", body = '{{\"a\":\"{path}\"}' }",
        ),
        (
            "rewrite ^ https://x.test$request_uri? permanent;",
            "redirect = { to = \"https://x.test{path}{query}\", status = 301 }",
        ),
        (
            "rewrite ^/(.*)$ https://x.test/$1 permanent;",
            "redirect = { to = \"https://x.test{path}{query}\", status = 301 }",
        ),
        (
            "rewrite ^/old$ /new permanent;",
            "path_exact = \"/old\"\nredirect = { to = \"/new{query}\", status = 301 }",
        ),
        (
            "rewrite ^/old/(.*)$ /new/$1 redirect;",
            "path_regex = \"/old/(.*)\"\nredirect = { to = \"/new/{1}{query}\", status = 302 }",
        ),
        (
            "location /old/ { rewrite ^/old/(.*)$ /new/$1 permanent; }",
            "redirect = { to = \"/new{rest}{query}\", status = 301 }",
        ),
        (
            "location / { if ($request_method = OPTIONS) { return 204; } proxy_pass http://h:1; }",
            "when.method = \"OPTIONS\"\nrespond = 204",
        ),
    ] {
        server(lines, &[expect]);
    }
    let (_, remarks) = server(
        "location / { if ($http_user_agent ~ bot) { return 403; } proxy_pass http://h:1; }",
        &[CLOSED],
    );
    remarked(
        &remarks,
        &["conditions on variables have no counterpart", "nobody is let in until you have written one"],
    );
}

#[test]
fn a_field_that_can_t_be_changed_is_no_key() {
    for lines in [
        "proxy_hide_header Sec-WebSocket-Accept;",
        "proxy_hide_header Date;",
        "proxy_hide_header Connection;",
    ] {
        let (toml, _) = server(&format!("location / {{ proxy_pass http://h:1; {lines} }}"), &[]);
        assert!(!toml.contains("response_headers"), "{toml}");
    }
}

const CLOSED: &str = "access.deny = [\"0.0.0.0/0\", \"::/0\"]";

#[test]
fn a_rule_of_access_that_has_no_counterpart_closes_its_routes() {
    for lines in [
        "location / { proxy_pass http://h:1; limit_except GET { deny all; } }",
        "location / { proxy_pass http://h:1; access_by_lua_file guard.lua; }",
        "auth_jwt realm; location / { proxy_pass http://h:1; }",
        "if ($ssl_client_verify != SUCCESS) { return 403; } location / { proxy_pass http://h:1; }",
        "location / { try_files $uri @app; } location @app { deny 10.0.0.0/8; proxy_pass http://h:1; }",
        "location / { try_files /x @app; } location @app { auth_basic x; auth_basic_user_file f; return 200 ok; }",
        "root /w; location / { try_files $uri /index.php; } location ~ \\.php$ { auth_basic x; auth_basic_user_file f;
         fastcgi_pass unix:/s; }",
    ] {
        let (_, remarks) = server(lines, &[CLOSED]);
        assert!(remarks.iter().any(|remark| remark.contains("until you have written one")), "{lines} {remarks:?}");
    }
    // What is answered at once is so before nginx asks who may come, and `off` keeps nothing out.
    for lines in [
        "location / { return 301 https://x.test/; deny all; }",
        "auth_basic x; auth_basic_user_file f; location / { auth_basic off; proxy_pass http://h:1; }",
        "deny all; location / { allow all; proxy_pass http://h:1; }",
    ] {
        let (toml, _) = server(lines, &[]);
        assert!(!toml.contains("access.deny"), "{toml}");
    }
}

#[test]
fn locations_that_keep_requests_out_have_all_their_paths() {
    for (lines, expect) in [
        (
            "location /.ht { deny all; } location / { proxy_pass http://h:1; }",
            "path_regex = '/\\.ht.*'\nrespond = 403",
        ),
        (
            "location /admin { deny all; } location / { proxy_pass http://h:1; }",
            "path_regex = \"/admin.*\"\nrespond = 403",
        ),
        (
            "location ~ /\\.(?!well-known).* { deny all; } location / { proxy_pass http://h:1; }",
            "path_regex = '.*/\\.(?:(?:[^w]|w(?:[^e]|e(?:[^l]|",
        ),
        (
            "location ^~ /data/ { location ~ \\.log$ { deny all; } proxy_pass http://h:1; }",
            "path_regex = '/data/.*\\.log'\nrespond = 403",
        ),
    ] {
        let (_, remarks) = server(lines, &[expect]);
        assert_eq!(remarks, [""; 0], "{lines}");
    }
    // Where the pattern has no counterpart, it has more paths rather than fewer.
    let (_, remarks) = server(
        "location ~ ^/(?!open)(a|b)$ { deny all; } location / { proxy_pass http://h:1; }",
        &["path_regex = \"/(a|b)\"\nrespond = 403"],
    );
    remarked(&remarks, &["the pattern here takes more paths than in nginx"]);
    let (_, remarks) = server("location /.git/ { deny all; } location / { proxy_pass http://h:1; }", &[]);
    assert_eq!(remarks, [""; 0]);
}

#[test]
fn what_is_stricter_for_one_server_of_a_certificate_is_so_for_all() {
    let (toml, remarks) = file(
        "ssl_certificate c.pem; ssl_certificate_key k.pem; ssl_client_certificate ca.pem;
         server { listen 443 ssl; server_name a.test; ssl_verify_client optional; return 204; }
         server { listen 443 ssl; server_name b.test; ssl_verify_client on; return 204; }",
        &["client_auth.ca = \"/etc/nginx/ca.pem\""],
    );
    assert!(!toml.contains("client_auth.required"), "{toml}");
    remarked(&remarks, &["the stricter are written"]);
}

#[test]
fn proxies_that_one_server_trusts_are_not_trusted_by_all() {
    let (toml, remarks) = file(
        "server { listen 80; server_name a.test; set_real_ip_from 0.0.0.0/0; return 204; }
         server { listen 80; server_name b.test; allow 10.0.0.0/8; deny all; return 204; }",
        &[],
    );
    assert!(!toml.contains("trusted_proxies ="), "{toml}");
    remarked(&remarks, &["one list for all of them"]);
}

#[test]
fn a_server_whose_addresses_are_not_understood_listens_nowhere() {
    let (toml, _) = import("server { listen intranet:8080; location / { proxy_pass http://h:1; } }");
    assert!(!toml.contains("address ="), "{toml}");
}

#[test]
fn ifs_of_certbot_are_routes_of_their_host() {
    file(
        "server { if ($host = www.a.test) { return 301 https://$host$request_uri; } listen 80; server_name www.a.test a.test; return 404; }
         server { listen 80; server_name b.test; return 204; }",
        &[
            "host = \"www.a.test\"\npath = \"/\"\nredirect = { to = \"https://{host}{path}{query}\", status = 301 }",
            "[[route]]\npath = \"/\"\nrespond = 404",
            "host = \"b.test\"\npath = \"/\"\nrespond = 204",
        ],
    );
}

#[test]
fn listeners_are_shared_by_servers() {
    file(
        "http {
            ssl_certificate a.pem; ssl_certificate_key a.key;
            server { listen 80; listen [::]:80; server_name a.test b.test; return 301 https://$host$request_uri; }
            server { listen 443 ssl; http2 on; server_name b.test; location / { proxy_pass http://h:1; } }
            server { listen 443 ssl default_server; server_name .a.test; location / { proxy_pass http://h:2; } }
            server { listen 8080; server_name c.test; listen 8443 ssl; return 204; }
        }",
        &[
            "name = \"http\"\naddress = [\"0.0.0.0:80\", \"[::]:80\"]\ntls = false",
            "name = \"https\"\naddress = \"0.0.0.0:443\"\n",
            "name = \"https-8443\"\naddress = \"0.0.0.0:8443\"\nalpn = [\"http/1.1\"]",
            "[certificates]\ndefault = \"a.test\"",
            "chain = \"/etc/nginx/a.pem\"\nkey = \"/etc/nginx/a.key\"",
            "listener = \"https\"\nhost = \"b.test\"\npath = \"/\"\nproxy = \"http://h:1\"",
            "listener = \"https\"\npath = \"/\"\nproxy = \"http://h:2\"",
            "listener = [\"http-8080\", \"https-8443\"]\npath = \"/\"\nrespond = 204",
        ],
    );
    let (_, remarks) = file(
        "server { listen 80; server_name a.test; return 204; } server { listen 80; server_name ~^b; return 403; }",
        &[],
    );
    remarked(
        &remarks,
        &["server_name ~^b: ~^b: hosts have no regular expressions", "no request comes to this server"],
    );
}

#[test]
fn upstreams_are_written_where_they_are_used() {
    let (toml, remarks) = file(
        "upstream app { least_conn; server 10.0.0.1:1 weight=2 max_conns=10; server unix:/run/a.sock max_fails=3 fail_timeout=20s; server 10.0.0.3 backup; }
         upstream other { server 10.0.0.4; }
         server { location / { proxy_pass http://app; proxy_next_upstream error timeout http_502; proxy_connect_timeout 2s; } }",
        &[
            "servers = [{ address = \"http://10.0.0.1:1\", weight = 2, max_sessions = 10 }, \"unix:/run/a.sock\"]\nbalance = \"least-sessions\"",
            "health.passive.failures = 3",
            "retry.on = [\"connect\", \"broken\", \"502\"]",
            "proxy = \"app\"\nconnect_timeout = \"2s\"\n",
            "request_headers.set.Host = \"app\"",
        ],
    );
    assert!(toml.contains("upstream other: no proxy_pass names this upstream"), "{toml}");
    remarked(&remarks, &["server 10.0.0.3 backup: there are no servers for the case"]);
}

#[test]
fn files_are_those_of_root_and_alias() {
    server(
        "root /var/www; index index.php index.html; location / { try_files $uri $uri/ /app.html; }
         location /docs/ { alias /srv/manual/; autoindex on; }
         location = /favicon.ico { expires 7d; }
         location /a/ { root /srv; }",
        &[
            "path = \"/\"\nfiles.directory = \"/var/www\"\nfiles.index = [\"index.php\", \"index.html\"]\nfiles.fallback = \"/app.html\"",
            "path = \"/docs/\"\nfiles.directory = \"/srv/manual\"\n",
            "files.listing = true",
            "path_exact = \"/favicon.ico\"\nfiles.directory = \"/var/www\"\n",
            "files.cache = \"7d\"",
            "path = \"/a/\"\nfiles.directory = \"/srv/a\"",
        ],
    );
    server(
        "root /var/www; location / { try_files $uri $uri/ /index.php?$args; }
         location ~ \\.php$ { include fastcgi_params; fastcgi_pass unix:/run/php.sock; }",
        &[
            "path_regex = \"/.*\"\nfastcgi.server = \"unix:/run/php.sock\"\nfiles.directory = \"/var/www\"\n",
            "files.fallback = \"/index.php\"",
            "path_regex = '.*\\.php'\nfastcgi.server = \"unix:/run/php.sock\"\nfastcgi.root = \"/var/www\"",
        ],
    );
    let (_, remarks) = server(
        "root /var/www; location / { try_files $uri @app; } location @app { proxy_pass http://h:1; }",
        &["path = \"/\"\nproxy = \"http://h:1\""],
    );
    remarked(&remarks, &["every request goes to @app"]);
}

#[test]
fn scripts_of_php_run_where_nginx_leads_to_them() {
    let php = "location ~ \\.php$ { include fastcgi_params; fastcgi_pass unix:/run/php.sock; }";
    // The home page is the index, and what isn't there is the fallback.
    server(
        &format!("root /var/www; index index.php; location / {{ try_files $uri $uri/ =404; }} {php}"),
        &[
            "path_regex = '.*\\.php'\nfastcgi.server = \"unix:/run/php.sock\"\nfastcgi.root = \"/var/www\"",
            "path_regex = \"/.*\"\nfastcgi.server = \"unix:/run/php.sock\"\nfiles.directory = \"/var/www\"\nfiles.index = \"index.php\"",
        ],
    );
    for last in ["/index.php?$query_string", "/index.php?$args", "/index.php$is_args$args", "/index.php"] {
        server(
            &format!("root /var/www; location / {{ try_files $uri $uri/ {last}; }} {php}"),
            &[
                "fastcgi.server = \"unix:/run/php.sock\"\nfiles.directory = \"/var/www\"\nfiles.fallback = \"/index.php\"",
            ],
        );
    }
    let (_, remarks) = file(
        "upstream php { server unix:/run/a.sock weight=2; server 10.0.0.1:9000; }
         server { listen 80; root /var/www; location / { fastcgi_pass php; } }",
        &["fastcgi.server = [\"unix:/run/a.sock\", \"10.0.0.1:9000\"]"],
    );
    remarked(&remarks, &["weights, limits and the like are not"]);
    let (_, remarks) = server(
        "root /var/www; location ~ \\.php$ { try_files $uri =404; fastcgi_index app.php; fastcgi_pass 10.0.0.1:9000;
         fastcgi_split_path_info ^(.+?\\.php)(/.*)$; fastcgi_param PATH_INFO $fastcgi_path_info; fastcgi_param QUERY_STRING $query_string;
         fastcgi_param SCRIPT_FILENAME /app/public$fastcgi_script_name; fastcgi_param APP_ENV prod; fastcgi_hide_header X-Powered-By; }",
        &[
            "response_headers.remove = [\"X-Powered-By\"]","fastcgi.document_root = \"/app/public\"", "fastcgi.index = \"app.php\""],
    );
    remarked(&remarks, &["scripts don't get APP_ENV"]);
    let (_, remarks) = server(
        "location /app/ { fastcgi_split_path_info ^(.+?\\.php)(/.*)$; fastcgi_param SCRIPT_FILENAME /srv$fastcgi_script_name; fastcgi_pass php:1; }",
        &["path = \"/app/\"\nfastcgi.server = \"php:1\"\nfastcgi.root = \"/srv/app\""],
    );
    remarked(&remarks, &["/a.php/b is not a request for the script /a.php here"]);
    server("root /w; location /app/ { fastcgi_pass php:1; }", &["fastcgi.root = \"/w/app\""]);
    server(
        "location / { fastcgi_param SCRIPT_FILENAME /srv/app.php; fastcgi_pass php:1; }",
        &["respond = 501"],
    );
    server(
        "root /w; location / { try_files $uri @front; }
         location @front { fastcgi_param SCRIPT_FILENAME $document_root/app.php; fastcgi_pass php:1; }",
        &["fastcgi.server = \"php:1\"\nfiles.directory = \"/w\"\nfiles.fallback = \"/app.php\""],
    );
    // The text of a script is no page.
    let (toml, _) = server("root /w; error_page 404 /index.php; location / { proxy_pass http://h:1; }", &[]);
    assert!(!toml.contains("error_pages ="), "{toml}");
}

#[test]
fn a_part_of_a_server_is_one() {
    file(
        "location /x { proxy_pass http://h:1; }",
        &["address = \"0.0.0.0:80\"", "path = \"/x\"\nproxy = \"http://h:1\""],
    );
    let (toml, remarks) = file("foo bar;\nserver { return 204; baz { qux; } }", &["respond = 204"]);
    assert!(toml.contains("nginx.conf:1: foo bar: this directive is not known to wssgate import"), "{toml}");
    remarked(
        &remarks,
        &["nginx.conf:2: baz: this directive is not known", "nginx.conf:1: foo bar: this directive"],
    );
}

#[test]
fn proxies_in_front_are_trusted() {
    file(
        "worker_processes 4;\nhttp { set_real_ip_from 10.0.0.0/8; set_real_ip_from ::1; real_ip_header proxy_protocol; access_log /var/log/a combined;
         resolver 127.0.0.11 valid=5s; keepalive_timeout 20;
         server { listen 80 proxy_protocol; return 204; } }",
        &[
            "workers = 4",
            "trusted_proxies = [\"10.0.0.0/8\", \"::1\"]",
            "proxy_protocol = [\"10.0.0.0/8\", \"::1\"]\nkeep_alive_timeout = \"20s\"",
            "[log]\naccess = \"/var/log/a\"\nformat = \"combined\"",
            "[dns]\nservers = \"127.0.0.11\"",
        ],
    );
}

/// What an operator would miss on the day after the move is on stderr.
#[test]
fn what_changes_in_silence_is_told() {
    for (lines, told) in [
        (
            "location / { proxy_pass https://h; }",
            "the server's certificate is verified here, and not in nginx",
        ),
        (
            "location / { proxy_pass http://h:1; proxy_pass_request_headers off; }",
            "the server gets what clients send",
        ),
        ("location / { proxy_pass http://h:1; proxy_redirect http:// https://; }", "other texts in it stay"),
        (
            "location / { proxy_pass http://h:1; proxy_cookie_path / '/; HttpOnly; Secure'; }",
            "without these attributes",
        ),
        ("location / { proxy_pass http://h:1; expires 1h; }", "the Cache-Control that the server sends"),
        ("location /files/ { internal; alias /srv/; }", "X-Accel-Redirect goes to clients"),
        ("root /w; location / { types { text/x-a b; } }", "the media type of their extension"),
        (
            "location ~ \\.php$ { return 204; } location /app/ { proxy_pass http://h:1/; }",
            "paths in answers of the server (Location, cookies) stay as they are",
        ),
    ] {
        let (_, remarks) = server(lines, &[]);
        assert!(remarks.iter().any(|remark| remark.contains(told)), "{lines} {remarks:#?}");
    }
    // Sessions that nginx keeps by pings are kept.
    let (toml, remarks) = server("location / { proxy_pass http://h:1; proxy_read_timeout 60s; }", &[]);
    assert!(!toml.contains("idle_timeout =") && remarks.is_empty(), "{toml}");
    let (toml, _) = file("server { listen 80; listen 443 quic reuseport; return 204; }", &[]);
    assert!(!toml.contains(":443"), "{toml}");
}

#[test]
fn certificates_of_clients_are_still_asked_for() {
    for lines in [
        "ssl_certificate $c.pem; ssl_certificate_key $c.key; ssl_client_certificate ca.pem;",
        "ssl_certificate c.pem; ssl_certificate_key c.key;",
    ] {
        let (toml, remarks) = import(&format!(
            "server {{ listen 443 ssl; ssl_verify_client on; {lines} location / {{ proxy_pass http://h:1; }} }}"
        ));
        assert!(toml.contains(CLOSED), "{toml}");
        assert!(remarks.iter().any(|remark| remark.contains("until you have written one")), "{remarks:?}");
    }
}

/// Pieces of configurations, put together at random.
fn pieces() -> impl Strategy<Value = String> {
    const LINES: [&str; 34] = [
        "proxy_pass http://h:1;",
        "proxy_pass http://app/;",
        "proxy_pass https://$x/y/;",
        "return 301 /$1;",
        "return 200 '{a}';",
        "root /var/www;",
        "alias /srv/x/;",
        "try_files $uri $uri/ /index.php?$args;",
        "try_files $uri @a;",
        "deny all;",
        "allow 10.0.0.1;",
        "auth_basic x;",
        "auth_basic_user_file f;",
        "add_header A '$b';",
        "add_header X-Y z always;",
        "rewrite ^/a/(.*)$ /$1 break;",
        "rewrite ^ https://$host? permanent;",
        "gzip on;",
        "expires -1;",
        "error_page 404 /404.html;",
        "proxy_set_header Host $host;",
        "proxy_set_header X-\u{e9} 1;",
        "fastcgi_pass app;",
        "internal;",
        "client_max_body_size 1x;",
        "if ($host = a) { return 404; }",
        "if ($x) { set $y 1; }",
        "set $x y;",
        "limit_req zone=z;",
        "proxy_read_timeout 0;",
        "auth_request /b;",
        "proxy_cookie_path / /;",
        "listen 80;",
        "server_name b.test *.b.test _;",
    ];
    const LOCATIONS: [&str; 10] =
        ["/", "= /a", "/a/", "/a", "^~ /b", "~ \\.php$", "~* ^/(a|b)/(.*)$", "@a", "~ ^/(?!x)", "= /a%zz"];
    let line = proptest::sample::select(&LINES[..]).prop_map(str::to_owned);
    let lines = proptest::collection::vec(line, 0..5).prop_map(|lines| lines.join("\n"));
    let location = (proptest::sample::select(&LOCATIONS[..]), lines.clone())
        .prop_map(|(path, lines)| format!("location {path} {{ {lines} }}\n"));
    let server = (lines, proptest::collection::vec(location, 0..4))
        .prop_map(|(lines, locations)| format!("server {{ {lines}\n{} }}\n", locations.concat()));
    proptest::collection::vec(server, 1..4)
        .prop_map(|servers| format!("upstream app {{ server a:1; }}\n{}", servers.concat()))
}

proptest! {
    /// Whatever is put together, each directive has an outcome, and what comes out is TOML.
    #[test]
    fn nothing_is_left_out(text in pieces()) {
        let (toml, _) = import(&text);
        let parsed: Result<toml::Table, _> = toml.parse();
        prop_assert!(parsed.is_ok(), "{}\n{toml}", parsed.unwrap_err());
    }
}
