//! The pages of the book in `docs/`, and their configurations as a test can run them.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use toml::{Table, Value};

use crate::pki::Pki;

/// A page of the book.
pub struct Page {
    /// Its path in `docs/`, such as `howto/nginx.md`.
    pub name: String,
    /// Its source.
    pub text: String,
}

/// Where the pages are.
#[must_use]
pub fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs")
}

/// All pages, by name. `upstream/` has reports to the authors of libraries, which are no part of the book.
#[must_use]
pub fn pages() -> Vec<Page> {
    let (mut pages, mut folders) = (Vec::new(), vec![directory()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(directory()).unwrap().to_str().unwrap().to_owned();
            if path.is_dir() && name != "upstream" {
                folders.push(path);
            } else if name.ends_with(".md") && name != "SUMMARY.md" {
                pages.push(Page { text: std::fs::read_to_string(path).unwrap(), name });
            }
        }
    }
    pages.sort_by(|a, b| a.name.cmp(&b.name));
    pages
}

/// The page of this name.
#[must_use]
pub fn page(name: &str) -> Page {
    Page { name: name.to_owned(), text: std::fs::read_to_string(directory().join(name)).unwrap() }
}

impl Page {
    /// The configurations on the page, whole ones and parts.
    #[must_use]
    pub fn configurations(&self) -> Vec<String> {
        let blocks = self.text.split("\n```toml\n").skip(1);
        blocks.map(|rest| rest.split_once("\n```").expect("an end of the block").0.to_owned()).collect()
    }
}

/// The files that configurations of the book name, below `root`, which stands for both `/` and the directory of the
/// configuration. Only their owner can read them.
pub fn fill(root: &Path, pki: &Pki) {
    let certificate = pki.issue(&["domain.com", "*.domain.com"]);
    for certs in ["certs", "etc/wssgate/certs"] {
        certificate.write(&root.join(certs), "domain.com");
    }
    let hex = |name: &str| Sha256::digest(name).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let secret =
        r#"{"keys":[{"kty":"oct","alg":"HS256","k":"c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2U"}]}"#;
    let users = "alice:$2y$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW\n";
    for (name, content) in [
        ("404.html", "not here"),
        ("admin-token", &"0".repeat(64)),
        ("etc/ssl/other/fullchain.pem", &certificate.fullchain),
        ("etc/ssl/other/privkey.pem", &certificate.key),
        ("etc/wssgate/origin-pull-ca.pem", &pki.intermediate_pem()),
        ("etc/wssgate/origin.key", &certificate.key),
        ("etc/wssgate/origin.pem", &certificate.fullchain),
        ("etc/wssgate/sticky.keys", &hex("sticky")),
        ("etc/wssgate/ticket.keys", &hex("ticket")),
        ("htpasswd", users), // her password is "secret"
        ("keys.json", secret),
        ("run/wssgate/README", ""),
        ("sites/one.toml", ""),
        ("srv/app/static/style.css", "p { color: teal }"),
        ("usr/share/novnc/vnc.html", "<title>noVNC</title>"),
        ("var/www/html/index.html", "the site"),
        ("var/www/html/index.php", "<?php"),
    ] {
        let file = root.join(name);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, content).unwrap();
        std::fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
    }
}

/// A configuration with the ports, paths and servers of a test. These are the rules:
///
/// - The first listener is at 127.0.0.1, the second at 127.0.0.2, and so on, each with a port that the system chooses;
///   the admin listener is at 127.0.0.100.
/// - Absolute paths are paths below `directory`.
/// - Every backend has the port `server`, at 127.0.0.1, and the second of a list at 127.0.0.2, and so on. The path behind
///   the address stays.
/// - Addresses that are trusted get this machine's beside them.
/// - There is no `[acme]`: certificates are those in `certs` of `directory`.
/// - A part of a file gets the listener or the route that it lacks.
///
/// # Panics
/// If it isn't TOML.
#[must_use]
pub fn runnable(configuration: &str, directory: &Path, server: u16) -> String {
    let mut config: Table = configuration.parse().unwrap_or_else(|error| panic!("{error}\n{configuration}"));
    if config.remove("acme").is_some() {
        let certificates = config.entry("certificates").or_insert_with(|| Table::new().into());
        let certificates = certificates.as_table_mut().unwrap();
        certificates.entry("directory").or_insert_with(|| "certs".into());
    }
    for (section, line) in
        [("listener", "address = \"\"\ntls = false"), ("route", "path = \"/\"\nrespond = 204")]
    {
        let part = || Value::Array(vec![Value::Table(line.parse().unwrap())]);
        config.entry(section).or_insert_with(part);
    }
    for (nth, listener) in config["listener"].as_array_mut().unwrap().iter_mut().enumerate() {
        let listener = listener.as_table_mut().unwrap();
        if !listener["address"].as_str().is_some_and(|address| address.starts_with("unix:")) {
            listener.insert("address".to_owned(), format!("127.0.0.{}:0", nth + 1).into());
        }
        if let Some(senders) = listener.get_mut("proxy_protocol") {
            trust_this_machine(senders);
        }
    }
    if let Some(proxies) = config.get_mut("trusted_proxies") {
        trust_this_machine(proxies);
    }
    if let Some(admin) = config.get_mut("admin") {
        admin.as_table_mut().unwrap().insert("address".to_owned(), "127.0.0.100:0".into());
    }
    for (key, value) in &mut config {
        substitute(key, value, directory, (1, server));
    }
    toml::to_string(&config).unwrap()
}

fn trust_this_machine(networks: &mut Value) {
    let named = networks.as_array().cloned().unwrap_or_else(|| vec![networks.clone()]);
    *networks = Value::Array(named.into_iter().chain(["127.0.0.0/8".into()]).collect());
}

/// Paths and backends, wherever they are. `server`: which of the backends of a list it is, and their port.
fn substitute(key: &str, value: &mut Value, directory: &Path, server: (usize, u16)) {
    match value {
        Value::Table(table) => {
            table.iter_mut().for_each(|(key, value)| substitute(key, value, directory, server));
        }
        Value::Array(list) => {
            for (nth, value) in list.iter_mut().enumerate() {
                substitute(key, value, directory, (nth + 1, server.1));
            }
        }
        Value::String(text) => {
            let is_path =
                ["/etc/", "/run/", "/srv/", "/usr/", "/var/"].iter().any(|root| text.starts_with(root));
            let here = directory.display();
            if let Some(socket) = text.strip_prefix("unix:/") {
                *text = format!("unix:{here}/{socket}");
            } else if is_path {
                *text = format!("{here}{text}");
            } else if matches!(key, "proxy" | "servers" | "address" | "url" | "ask")
                && let Some((scheme, rest)) = text.split_once("://")
            {
                let path = rest.find('/').map_or("", |at| &rest[at..]);
                *text = format!("{scheme}://127.0.0.{}:{}{path}", server.0, server.1);
            }
        }
        _ => {}
    }
}
