//! Configurations of Apache and what becomes of them. Each result is also one that `wssgate check` takes.

use std::path::Path;

use super::*;
use crate::config::Config;
use crate::import::sources::Memory;

/// The configuration without comments, which has to be one, and the remarks.
#[track_caller]
fn file(text: &str, expect: &[&str]) -> (String, Vec<String>) {
    let mut memory = Memory::of(&[("/etc/apache2/apache2.conf", text)]);
    let (site, book) =
        read(&mut memory, Path::new("/etc/apache2/apache2.conf"), "/etc/apache2".into()).unwrap();
    let counts = book.counts();
    let remarks =
        book.into_remarks().iter().map(|remark| format!("{}: {}", remark.at, remark.what)).collect();
    let toml = site.text();
    assert_eq!(
        counts.directives,
        counts.keys + counts.by_itself + counts.commented,
        "something is left out: {toml}"
    );
    let (_, problems) = Config::parse(Path::new("test.toml"), &toml);
    assert_eq!(problems, [], "{toml}");
    let keys = toml.lines().filter(|line| !line.starts_with('#'));
    let bare: String = keys
        .map(|line| line.split(" # apache2.conf:").next().unwrap())
        .fold(String::new(), |text, line| text + line + "\n");
    for expect in expect {
        assert!(bare.contains(expect), "{toml}\n  lacks\n{expect}");
    }
    (toml, remarks)
}

/// A virtual host on port 80 with these lines.
#[track_caller]
fn vhost(lines: &str, expect: &[&str]) -> (String, Vec<String>) {
    file(&format!("<VirtualHost *:80>\n{lines}\n</VirtualHost>"), expect)
}

#[track_caller]
fn remarked(remarks: &[String], expect: &[&str]) {
    assert_eq!(remarks.len(), expect.len(), "{remarks:#?}");
    for (remark, expect) in remarks.iter().zip(expect) {
        assert!(remark.contains(expect), "{remark} lacks {expect}");
    }
}

#[test]
fn virtual_hosts_share_listeners() {
    file(
        "Listen 80\n<IfModule mod_ssl.c>\nListen 443\n</IfModule>\n<IfModule !mod_ssl.c>\nListen 81\n</IfModule>
         <VirtualHost *:80>\nServerName a.test\nServerAlias www.a.test *.b.test\nRedirect permanent / https://a.test/\n</VirtualHost>
         <VirtualHost _default_:443>\nServerName https://a.test:443\nSSLEngine on\nSSLCertificateFile a.pem\nSSLCertificateKeyFile a.key
         SSLProtocol all -SSLv3 -TLSv1 -TLSv1.1\nProtocols h2 http/1.1\nProxyPass / http://127.0.0.1:1/\nProxyPreserveHost On\n</VirtualHost>
         <VirtualHost *:443>\nServerName c.test\nSSLEngine on\nSSLCertificateFile a.pem\nSSLCertificateKeyFile a.key\nRedirect 410 /\n</VirtualHost>",
        &[
            "name = \"http\"\naddress = [\"0.0.0.0:80\", \"[::]:80\"]\ntls = false",
            "name = \"https\"\naddress = [\"0.0.0.0:443\", \"[::]:443\"]\nmin_version = \"1.2\"",
            "chain = \"/etc/apache2/a.pem\"\nkey = \"/etc/apache2/a.key\"",
            "listener = \"http\"\npath = \"/\"\nredirect = { to = \"https://a.test{rest}{query}\", status = 301 }",
            "listener = \"https\"\npath = \"/\"\nproxy = \"http://127.0.0.1:1\"\n",
            "listener = \"https\"\nhost = \"c.test\"\npath = \"/\"\nrespond = 410",
        ],
    );
}

#[test]
fn servers_get_the_paths_that_apache_sends() {
    for (line, expect) in [
        ("ProxyPass /a http://h:1/a", "path = \"/a\"\nproxy = \"http://h:1\"\n"),
        ("ProxyPass /a/ http://h:1/", "strip_prefix = \"/a\""),
        ("ProxyPass /a http://h:1", "strip_prefix = \"/a\""),
        ("ProxyPass /a ws://h:1/b timeout=30 retry=0", "rewrite = \"/b{rest}\""),
        (
            "ProxyPass /a ws://h:1/b timeout=30 retry=0",
            "response_timeout = \"30s\"\nwebsocket.idle_timeout = \"30s\"",
        ),
        (
            "ProxyPassMatch ^/a/(.*)$ http://h:1/b/$1",
            "path_regex = \"/a/(.*)\"\nproxy = \"http://h:1\"\nrewrite = \"/b/{1}\"",
        ),
        (
            "<Location /a>\nProxyPass http://h:1/\nProxyPassReverse http://h:1/\n</Location>",
            "strip_prefix = \"/a\"",
        ),
        ("ProxyPass / unix:/run/a.sock|http://localhost/", "proxy = \"unix:/run/a.sock\"\n"),
        ("ProxyPass / http://h:1/", "request_headers.set.Host = \"h:1\""),
        (
            "DocumentRoot /w\nProxyPass /x !\nProxyPass / http://h:1/",
            "path = \"/x\"\nfiles.directory = \"/w/x\"",
        ),
        ("ProxyPass / ajp://h:1/", "respond = 501"),
        ("Redirect /a http://b.test/c", "redirect = { to = \"http://b.test/c{rest}{query}\", status = 302 }"),
        ("RedirectMatch 301 ^/a/(.*)$ /b/$1", "redirect = { to = \"/b/{1}{query}\", status = 301 }"),
        ("Alias /a /srv/b", "path = \"/a\"\nfiles.directory = \"/srv/b\""),
    ] {
        vhost(line, &[expect]);
    }
}

#[test]
fn rules_for_upgrades_are_routes_with_a_condition() {
    let conditions = "RewriteEngine On\nRewriteCond %{HTTP:Upgrade} websocket [NC]\nRewriteCond %{HTTP:Connection} upgrade [NC]\n";
    let same = format!("{conditions}RewriteRule ^/?(.*) \"ws://h:1/$1\" [P,L]\nProxyPass / http://h:1/\n");
    let (toml, remarks) = vhost(&same, &["path = \"/\"\nproxy = \"http://h:1\"\n"]);
    assert!(!toml.contains("when") && remarks.is_empty(), "{toml} {remarks:?}");
    assert!(!toml.contains("not asked"), "{toml}");
    let other = format!("{conditions}RewriteRule ^/app/(.*) ws://h:2/$1 [P,L]\nProxyPass / http://h:1/\n");
    vhost(
        &other,
        &[
            "path = \"/\"\nproxy = \"http://h:1\"",
            "path = \"/app/\"\nwhen.upgrade = true\nproxy = \"ws://h:2\"\nstrip_prefix = \"/app\"",
        ],
    );
    let both = format!(
        "{conditions}RewriteRule .* ws://h:2%{{REQUEST_URI}} [P]\nProxyPass /x http://h:1/x\nDocumentRoot /w\n"
    );
    let (toml, _) = vhost(
        &both,
        &[
            "path = \"/x\"\nwhen.upgrade = true\nproxy = \"ws://h:2\"",
            "path = \"/\"\nwhen.upgrade = true\nproxy = \"ws://h:2\"",
        ],
    );
    assert_eq!(toml.matches("when.upgrade").count(), 2, "{toml}");
}

#[test]
fn other_rules_redirect_or_are_said_to_be_missing() {
    file(
        "<VirtualHost *:80>\nServerName a.test\nRewriteEngine on\nRewriteCond %{SERVER_NAME} =a.test
         RewriteRule ^ https://%{SERVER_NAME}%{REQUEST_URI} [END,NE,R=permanent]\n</VirtualHost>",
        &["path = \"/\"\nredirect = { to = \"https://{host}{path}{query}\", status = 301 }"],
    );
    vhost(
        "RewriteEngine on\nRewriteRule ^/old$ /new [R=301,L]\nRewriteRule ^/no/ - [F]\nDocumentRoot /w",
        &[
            "path_exact = \"/old\"\nredirect = { to = \"/new{query}\", status = 301 }",
            "path_regex = \"/no/.*\"\nrespond = 403",
        ],
    );
    let (_, remarks) = vhost(
        "RewriteEngine on\nRewriteCond %{REQUEST_FILENAME} !-f\nRewriteRule ^ /index.php [L]\nDocumentRoot /w",
        &[],
    );
    remarked(&remarks, &["this rule (if rewritecond %{REQUEST_FILENAME} !-f) has no counterpart"]);
}

#[test]
fn access_is_not_wider_than_before() {
    vhost(
        "DocumentRoot /w\n<Directory /w>\nRequire all granted\nOptions Indexes\nAllowOverride None\n</Directory>
         <Location /a>\nRequire ip 10.0.0.0/8 ::1\n</Location>\n<Location /b>\nRequire all denied\n</Location>
         <Location /c>\nAuthType Basic\nAuthName \"c\"\nAuthUserFile users\nRequire valid-user\n</Location>",
        &[
            "path = \"/\"\nfiles.directory = \"/w\"\nfiles.listing = true",
            "path = \"/a\"\nfiles.directory = \"/w/a\"",
            "access.allow = [\"10.0.0.0/8\", \"::1\"]",
            "path = \"/b\"\nrespond = 403",
            "access.basic.file = \"/etc/apache2/users\"\naccess.basic.realm = \"c\"",
        ],
    );
    let (_, remarks) = vhost(
        "DocumentRoot /w\n<Location />\nRequire host a.test\n</Location>",
        &["access.deny = [\"0.0.0.0/0\", \"::/0\"]"],
    );
    remarked(&remarks, &["this requirement has no counterpart: nobody is let in"]);
}

#[test]
fn fields_and_balancers() {
    let (_, remarks) = vhost(
        "Header always set X-A \"a b\"\nHeader unset Server\nHeader set X-B %D\nRequestHeader set X-Forwarded-Proto expr=%{REQUEST_SCHEME}
         RequestHeader unset X-C\n<Proxy balancer://app>\nBalancerMember http://h:1 loadfactor=2\nBalancerMember http://h:2
         ProxySet lbmethod=bybusyness\n</Proxy>\nProxyPass / balancer://app/",
        &[
            "response_headers.set.X-A = \"a b\"\nresponse_headers.remove = \"Server\"",
            "request_headers.remove = \"X-C\"",
            "name = \"app\"\nbalance = \"least-sessions\"\nservers = [{ address = \"http://h:1\", weight = 2 }, \"http://h:2\"]",
            "proxy = \"app\"",
        ],
    );
    remarked(&remarks, &["this value of Apache's own has no counterpart"]);
    vhost(
        "DocumentRoot /w\nDirectoryIndex index.php\nFallbackResource /index.php\n<FilesMatch \\.php$>
         SetHandler \"proxy:unix:/run/php.sock|fcgi://localhost\"\n</FilesMatch>",
        &[
            "files.directory = \"/w\"\nfiles.index = \"index.php\"\nfiles.fallback = \"/index.php\"\nfastcgi.server = \"unix:/run/php.sock\"",
        ],
    );
}

#[test]
fn a_rule_of_access_that_has_no_counterpart_closes_its_routes() {
    let closed = "access.deny = [\"0.0.0.0/0\", \"::/0\"]";
    for rule in [
        "<Location />\nRequire user alice\n</Location>",
        "<Location />\nAuthType Digest\nAuthUserFile users\nRequire valid-user\n</Location>",
        "<Location />\nAuthType Basic\nAuthBasicProvider ldap\nAuthUserFile users\nRequire valid-user\n</Location>",
        "<Location />\nOrder allow,deny\nAllow from all\nDeny from a.test\n</Location>",
        "<Location />\nSSLRequireSSL\n</Location>",
        "<Location />\nSSLVerifyClient require\n</Location>",
        "<Location />\n<LimitExcept GET>\nRequire all denied\n</LimitExcept>\n</Location>",
        "<If \"%{HTTP_HOST} == 'a'\">\nRequire all denied\n</If>",
        "<Proxy *>\nRequire host a.test\n</Proxy>",
        "<ProxyMatch http://.*/a>\nRequire ip 10\n</ProxyMatch>",
        "<LocationMatch \"^/(?!public)x\">\nRequire ip 10\n</LocationMatch>\nProxyPassMatch ^/x http://h:1",
        "SecRuleEngine On",
        "<Location />\nRewriteEngine on\nRewriteRule ^ - [F]\n</Location>",
        "Use Members",
    ] {
        let (toml, remarks) = vhost(&format!("{rule}\nProxyPass / http://h:1/"), &[]);
        let routes: Vec<&str> = toml.split("[[route]]").skip(1).collect();
        assert!(routes.iter().all(|route| route.contains(closed)), "{rule}: {toml}");
        assert!(remarks.iter().any(|remark| remark.contains("nobody is let in")), "{rule}: {remarks:?}");
    }
}

#[test]
fn patterns_that_keep_requests_out_come_first() {
    vhost(
        "ProxyPass /api http://h:1/api\nDocumentRoot /w\n<LocationMatch \"/(data|config)/\">\nRequire all denied\n</LocationMatch>",
        &[
            "path_regex = \".*/(data|config)/.*\"\nrespond = 403",
            "path_regex = \"/api(/.*)?\"\nproxy = \"http://h:1\"\n",
            "path_regex = \"(/.*)?\"\nfiles.directory = \"/w\"",
        ],
    );
    // Names of files say nothing about servers.
    vhost(
        "ProxyPass /api http://h:1/api\nDocumentRoot /w\n<FilesMatch \"\\.(inc|bak)$\">\nRequire all denied\n</FilesMatch>",
        &[
            "path = \"/api\"\nproxy = \"http://h:1\"\n",
            "path_regex = '(?:/.*)?(?:/[^/]*(?:\\.(inc|bak)))'\nrespond = 403",
        ],
    );
}

#[test]
fn refusals_that_can_not_be_read_close_more_paths() {
    for (line, expect) in [
        ("RedirectMatch 404 ^/(?!sub/).*\\.sql$", "path_regex = '/.*\\.sql'\nrespond = 404"),
        ("RedirectMatch gone ^/(?(1)a|b)", "path = \"/\"\nrespond = 410"),
        ("Redirect 403 \"/a/b c\"", "path = \"/a\"\nrespond = 403"),
        ("Redirect 403 \"/a b\"", "path = \"/\"\nrespond = 403"),
        ("<LocationMatch ^/(?!a)x>\nRedirect 404\n</LocationMatch>", "path_regex = \"/x.*\"\nrespond = 403"),
        (
            "<LocationMatch ^/(?!a)x>\nSetHandler server-status\n</LocationMatch>",
            "path_regex = \"/x.*\"\nrespond = 403",
        ),
        ("RewriteEngine on\nRewriteRule ^/(?!a)x - [G]", "path_regex = \"/x.*\"\nrespond = 410"),
        ("RewriteEngine on\nRewriteRule !^/a - [F]", "path = \"/\"\nrespond = 403"),
        ("ProxyPassMatch ^/(?!a)x http://h:1", "path_regex = \"/x.*\"\nrespond = 501"),
        ("ScriptAliasMatch ^/(?!a)x /w/$1", "path_regex = \"/x.*\"\nrespond = 501"),
    ] {
        let (_, remarks) = vhost(&format!("{line}\nDocumentRoot /w"), &[expect]);
        assert_eq!(remarks.len(), 1, "{line}: {remarks:?}");
        assert!(!remarks[0].contains("no regular expression") || line.contains("?(1)"), "{remarks:?}");
    }
    let (_, remarks) = vhost("RedirectMatch ^/(?!a)x /y\nDocumentRoot /w", &[]);
    remarked(&remarks, &["its requests go to another route"]);
}

#[test]
fn scripts_are_not_served_as_files() {
    let cgi = "(?:/.*)?(?:/[^/]*\\.(?i:cgi|pl)(?:\\.[^/]*)?)'\nrespond = 501";
    for (lines, expect, says) in [
        ("AddHandler cgi-script .cgi pl", format!("path_regex = '{cgi}"), "no programs run here"),
        (
            "<Directory /w/up>\nOptions +ExecCGI\nAddHandler cgi-script .cgi .pl\n</Directory>",
            format!("path_regex = '/up{cgi}"),
            "no programs run here",
        ),
        (
            "<Directory /w/cgi>\nSetHandler cgi-script\n</Directory>",
            "path = \"/cgi\"\nrespond = 501".to_owned(),
            "no programs run here",
        ),
        (
            "<Files *.lua>\nSetHandler lua-script\n</Files>",
            "path_regex = '(?:/.*)?(?:/[^/]*\\.lua)'\nrespond = 501".to_owned(),
            "no programs run here",
        ),
        (
            "<FilesMatch \".+\\.ph(?:ar|p|tml)$\">\nSetHandler application/x-httpd-php\n</FilesMatch>",
            "path_regex = '(?:/.*)?(?:/[^/]*(?:.+\\.ph(?:ar|p|tml)))'\nrespond = 501".to_owned(),
            "PHP runs inside of Apache here",
        ),
        (
            "AddType application/x-httpd-php .php .inc",
            "path_regex = '(?:/.*)?(?:/[^/]*\\.(?i:php|inc)(?:\\.[^/]*)?)'\nrespond = 501".to_owned(),
            "PHP runs inside of Apache here",
        ),
        (
            "<FilesMatch \"\\.(php|inc)$\">\nSetHandler proxy:fcgi://127.0.0.1:9000\n</FilesMatch>",
            "path_regex = '(?:/.*)?(?:/[^/]*\\.(?i:inc)(?:\\.[^/]*)?)'\nrespond = 501".to_owned(),
            "so these others get 501",
        ),
        ("WSGIScriptAlias / /w/a.py", "path = \"/\"\nrespond = 501".to_owned(), "no programs run here"),
        ("JkMount /* w", "path = \"/\"\nrespond = 501".to_owned(), "AJP"),
        ("JkMount /*.jsp w", "path_regex = '/.*\\.jsp'\nrespond = 501".to_owned(), "AJP"),
        ("PassengerEnabled on", "path = \"/\"\nrespond = 501".to_owned(), "no programs run here"),
    ] {
        let (_, remarks) = vhost(&format!("DocumentRoot /w\n{lines}"), &[&expect]);
        remarked(&remarks, &[says]);
    }
    let (toml, _) = vhost(
        "DocumentRoot /w\nAddHandler cgi-script .pl\nDirectoryIndex index.pl index.html\nFallbackResource /a.pl",
        &["files.index = \"index.html\""],
    );
    assert!(!toml.contains("files.fallback ="), "{toml}");
    // Nothing of it holds for servers, or where a server runs the scripts.
    let php = "AddType application/x-httpd-php .php\n";
    let (toml, _) = vhost(&format!("{php}ProxyPass / http://h:1/"), &[]);
    assert!(!toml.contains("501"), "{toml}");
    let (toml, _) = vhost(
        &format!("{php}DocumentRoot /w\nAddHandler proxy:fcgi://127.0.0.1:9000 .php"),
        &["fastcgi.server"],
    );
    assert!(!toml.contains("501"), "{toml}");
}

#[test]
fn members_and_cookies_that_are_left_out_are_named() {
    let (_, remarks) = vhost(
        "<Proxy balancer://app>\nBalancerMember http://h:1\nBalancerMember http://h:2 status=D
         BalancerMember http://h:3 status=+H\nProxySet stickysession=JSESSIONID|jsessionid\n</Proxy>
         ProxyPass /x balancer://app/x stickysession=ROUTEID\nProxyPass / balancer://app/ stickysession=JSESSIONID",
        &["sticky.cookie = \"JSESSIONID\"\nservers = \"http://h:1\""],
    );
    let says =
        ["it is disabled in Apache", "for the case that others are down", "ROUTEID is not the one of this"];
    remarked(&remarks, &says);
}

#[test]
fn addresses_have_the_line_that_names_them() {
    let (toml, _) = vhost(
        "DocumentRoot /w\n<Directory /w>\nRequire all granted\n</Directory>\n<Location />\nOrder deny,allow
         Deny from all\nAllow from 10.0.0.0/8\n</Location>",
        &["access.allow = \"10.0.0.0/8\""],
    );
    assert!(toml.contains("access.allow = \"10.0.0.0/8\" # apache2.conf:9"), "{toml}");
}

#[test]
fn a_host_may_have_many_names() {
    let names: String = (0..20_000).map(|n| format!(" h{n}.test")).collect();
    let begun = std::time::Instant::now();
    vhost(&format!("ServerName a\nServerAlias{names} *.test\nRedirect 410 /"), &["respond = 410"]);
    assert!(begun.elapsed() < std::time::Duration::from_secs(20), "{:?}", begun.elapsed());
}

#[test]
fn names_with_wildcards_close_what_they_may_hold_for() {
    let (toml, _) = vhost(
        "DocumentRoot /w\n<Directory /home/*/public_html>\nRequire ip 10\n</Directory>\n<Location /a*>\nRequire all denied\n</Location>",
        &[
            "path_regex = \"/a[^/]*(/.*)?\"\nrespond = 403",
            "path_regex = \"(/.*)?\"\nfiles.directory = \"/w\"",
        ],
    );
    assert!(!toml.contains("access.deny"), "{toml}");
    vhost(
        "DocumentRoot /w\n<Directory /w/*/private>\nRequire ip 10\n</Directory>",
        &["access.deny = [\"0.0.0.0/0\", \"::/0\"]"],
    );
}

#[test]
fn names_of_files_in_a_directory_are_kept_in() {
    vhost(
        "DocumentRoot /w\nAlias /s /srv/s\nAlias /t /srv/other\n<Directory /w/up>\n<FilesMatch \"\\.php$\">\nRequire all denied
         </FilesMatch>\n</Directory>\n<Directory /srv/s>\n<Files *.key>\nRequire all denied\n</Files>\n</Directory>",
        &[
            "path_regex = '/up(?:/.*)?(?:/[^/]*(?:\\.php))'\nrespond = 403",
            "path_regex = '/s(?:/.*)?(?:/[^/]*\\.key)'\nrespond = 403",
            "path = \"/t\"\nfiles.directory = \"/srv/other\"",
        ],
    );
}

#[test]
fn what_is_around_a_narrower_place_does_not_open_it() {
    // Fields for a kind of file don't take the password of a place away.
    let (toml, _) = vhost(
        "DocumentRoot /w\n<LocationMatch \"\\.css$\">\nHeader set X-A a\n</LocationMatch>
         <Location /private>\nAuthType Basic\nAuthUserFile users\nRequire valid-user\n</Location>",
        &[
            "path = \"/private\"\nfiles.directory = \"/w/private\"\naccess.basic.file = \"/etc/apache2/users\"",
        ],
    );
    assert!(!toml.contains("path_regex = \"/private"), "{toml}");
    // Apache has /a outside of /a/.
    vhost(
        "DocumentRoot /w\n<Location />\nRequire all denied\n</Location>\n<Location /a/>\nRequire all granted\n</Location>",
        &[
            "path_exact = \"/a\"\nrespond = 403",
            "path = \"/a/\"\nfiles.directory = \"/w/a\"",
            "path = \"/\"\nrespond = 403",
        ],
    );
    // A directory that isn't granted is denied by what stands around it.
    vhost(
        "<Directory />\nRequire all denied\n</Directory>\n<Directory /w/open>\nRequire all granted\n</Directory>\nDocumentRoot /w",
        &["path = \"/open\"\nfiles.directory = \"/w/open\"", "path = \"/\"\nrespond = 403"],
    );
}

#[test]
fn the_first_that_takes_a_path_counts() {
    let (toml, _) = vhost(
        "ProxyPass /a http://h:1/a\nProxyPass /a/b http://h:2/\nRedirect /a/old /new\nAlias /a/c /srv/c\nProxyPass / http://h:3/",
        &["path = \"/a\"\nproxy = \"http://h:1\"\n", "path = \"/\"\nproxy = \"http://h:3\""],
    );
    assert!(!toml.contains("h:2\"") && !toml.contains("/srv/c\"") && !toml.contains("/new"), "{toml}");
    vhost(
        "ProxyPass /.well-known/acme-challenge !\nProxyPass / http://h:1/\nAlias /.well-known/acme-challenge /var/acme",
        &["path = \"/.well-known/acme-challenge\"\nfiles.directory = \"/var/acme\"", "path = \"/\"\nproxy"],
    );
    file(
        "Listen 80\nListen 443\n<VirtualHost *:80 *:443>\nSSLEngine on\nSSLCertificateFile a.pem\nServerName a.test
         RewriteEngine on\nRewriteCond %{HTTPS} off\nRewriteCond %{REQUEST_URI} !^/ok
         RewriteRule ^(.*)$ https://%{HTTP_HOST}$1 [R=301,L]\nProxyPass / http://h:1/\n</VirtualHost>",
        &["path = \"/\"\nproxy = \"http://h:1\""],
    );
}

#[test]
fn clients_certificates_are_asked_for_or_nobody_comes_in() {
    let tls = "SSLEngine on\nSSLCertificateFile a.pem\nSSLCertificateKeyFile a.key\nProxyPass / http://h:1/";
    file(
        &format!(
            "<VirtualHost *:443>\n{tls}\nSSLVerifyClient require\nSSLCACertificateFile ca.pem\n</VirtualHost>"
        ),
        &["client_auth.ca = \"/etc/apache2/ca.pem\"\nclient_auth.required = true"],
    );
    let (_, remarks) = file(
        &format!(
            "<VirtualHost *:443>\n{tls}\nSSLVerifyClient require\nSSLCACertificatePath ca\n</VirtualHost>"
        ),
        &["access.deny = [\"0.0.0.0/0\", \"::/0\"]"],
    );
    remarked(&remarks, &["this keeps requests out, and has no counterpart"]);
}

#[test]
fn socket_io_by_its_query() {
    vhost(
        "RewriteEngine On\nRewriteCond %{REQUEST_URI} ^/socket.io [NC]\nRewriteCond %{QUERY_STRING} transport=websocket [NC]
         RewriteRule /(.*) ws://localhost:3001/$1 [P,L]\nProxyPass / http://localhost:3000/",
        &[
            "path = \"/socket.io\"\nwhen.upgrade = true\nproxy = \"ws://localhost:3001\"\n",
            "path = \"/\"\nproxy = \"http://localhost:3000\"",
        ],
    );
}

#[test]
fn the_first_log_is_for_all_hosts() {
    file(
        "<VirtualHost *:80>\nServerName a\nCustomLog /var/log/a.log combined\n</VirtualHost>
         <VirtualHost *:80>\nServerName b\nCustomLog /var/log/b.log combined\n</VirtualHost>",
        &["[log]\naccess = \"/var/log/a.log\"\nformat = \"combined\""],
    );
}

#[test]
fn proxies_in_front_are_trusted_where_all_hosts_do() {
    file(
        "RemoteIPHeader X-Forwarded-For\nRemoteIPTrustedProxy 10.0.0.0/8\n<VirtualHost *:80>\nProxyPass / http://h:1/\n</VirtualHost>",
        &["trusted_proxies = \"10.0.0.0/8\""],
    );
    let (toml, remarks) = file(
        "RemoteIPHeader X-Forwarded-For\n<VirtualHost *:80>\nServerName a\nRemoteIPInternalProxy 10.0.0.0/8\n</VirtualHost>
         <VirtualHost *:80>\nServerName b\n</VirtualHost>",
        &[],
    );
    assert!(!toml.contains("trusted_proxies = ") && !remarks.is_empty(), "{toml}");
}

proptest::proptest! {
    #[test]
    fn nothing_is_left_out(
        lines in proptest::collection::vec(
            proptest::sample::select(vec![
                "Listen 80", "Listen 443", "SSLEngine on", "ServerName a.test", "ServerAlias *.a *", "DocumentRoot /w",
                "ProxyPass /a http://h:1/b", "ProxyPass /a !", "ProxyPassMatch ^/(.*)x$ http://h:1/$1", "RewriteEngine on",
                "RewriteCond %{HTTP:Upgrade} websocket [NC]", "RewriteRule ^/(.*)$ ws://h:2/$1 [P]", "RewriteRule ^/a - [F]",
                "RewriteRule ^ https://%{HTTP_HOST}%{REQUEST_URI} [R=301]", "Redirect 301 /a /b", "RedirectMatch x /y",
                "Alias /c /srv/c", "Require ip 10", "Require all denied", "Order deny,allow", "Deny from all", "AllowOverride All",
                "Header set X y", "Unknown x", "Options +Indexes", "ErrorDocument 404 /x.html", "<Location /a/b>", "</Location>",
                "<LocationMatch \\.php$>", "</LocationMatch>", "<Directory /w/a>", "</Directory>", "<FilesMatch ^x|y$>",
                "</FilesMatch>", "<VirtualHost *:80>", "</VirtualHost>", "<IfModule a>", "</IfModule>", "<Proxy *>", "</Proxy>",
                "SetHandler server-status", "SSLVerifyClient require", "SSLCertificateFile a.pem",
            ]),
            0..24,
        )
    ) {
        let text = lines.join("\n");
        let mut memory = Memory::of(&[("/etc/apache2/apache2.conf", text.as_str())]);
        if let Ok((site, book)) = read(&mut memory, Path::new("/etc/apache2/apache2.conf"), "/etc/apache2".into()) {
            let counts = book.counts();
            proptest::prop_assert_eq!(counts.directives, counts.keys + counts.by_itself + counts.commented);
            proptest::prop_assert!(site.text().parse::<toml::Table>().is_ok());
        }
    }
}
