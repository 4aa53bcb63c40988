//! `[admin]`: health, metrics, and the page for people.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::document::Document;
use super::file;
use super::kind::{self, List};
use super::model::{Admin, Config};
use super::option::options;
use super::problem::Problem;
use super::rules;
use super::spec::At;
use crate::net::listening::ListenAddress;
use crate::site::admin_token::{AdminToken, TOKEN_LEN_MIN, TokenFile};

/// The admin listener is for this machine alone unless the file names another address.
const ADDRESS: ListenAddress = ListenAddress::Ip(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9180));
/// In bytes.
const TOKEN_FILE_LEN_MAX: u64 = 4096;

options! {
    /// Health (`/healthz`, `/readyz`), metrics (`/metrics`) and, at `/`, a page for people that shows what the gateway is
    /// doing. Without this section they are not served.
    struct AdminOptions: "[admin]";

    /// The address to listen on. Port 0 lets the system choose a port. `"unix:/run/wssgate/admin.sock"` is a Unix socket,
    /// which every user of this machine can reach who can reach its directory; `curl --unix-socket PATH http://localhost/`
    /// or `ssh -L 9180:PATH` asks for it.
    address: kind::ListenAddress, default = ADDRESS;
    /// The names by which browsers may ask for the page, beside the address and, on a loopback address or a Unix socket,
    /// `localhost`. Under such a name the page wants the token. A proxy on this machine has to ask by such a name, or to
    /// say for whom it asks (`X-Forwarded-For`), or else all its clients see the page.
    host: List<kind::Host>, otherwise = "none";
    /// The file with the token of the page: one line of at least 32 characters, as `openssl rand -hex 32` makes it. The
    /// page wants it everywhere but on a loopback address or a Unix socket, and every action wants it. `/healthz`, `/readyz` and `/metrics`
    /// never do. A reload reads the file again.
    token_file: kind::File, optional;
    /// Whether the page may close sessions, drain and undrain routes and backends, and reload. Needs `token_file`.
    actions: kind::Boolean, default = false;
}

pub(super) fn read(d: &mut Document<'_>, section: AdminOptions) -> Admin {
    let At { value: address, place } = section.address;
    if let Some(what) = rules::admin_actions(section.actions.value, section.token_file.is_some()) {
        d.problem(section.actions.place, what);
    }
    Admin {
        address,
        place,
        hosts: section.host.map(|at| at.value).unwrap_or_default(),
        token: section.token_file.map(|at| TokenFile::new(at.value, at.place)),
        has_actions: section.actions.value,
    }
}

/// Reads the file with the token. Returns what is wrong; blocks.
#[must_use]
pub fn prepare(config: &Config) -> Option<Problem> {
    let token = config.admin.as_ref()?.token.as_ref()?;
    let problem = |what: String| {
        let file = token.path.display();
        Some(config.problem(token.written_at, format!("token_file: {file}: {what}")))
    };
    let content = match file::read(&token.path, TOKEN_FILE_LEN_MAX) {
        Ok(content) => content,
        Err(e) => return problem(format!("it can't be read: {e}")),
    };
    // What is in it is never repeated.
    match content.bytes.as_deref().map(<[u8]>::trim_ascii).and_then(AdminToken::new) {
        Some(read) => token.prepare(read, content.is_open),
        None => {
            return problem(format!(
                "expected one line of {TOKEN_LEN_MIN} letters and digits at least; write it with: openssl rand -hex 32"
            ));
        }
    }
    None
}

/// What an operator should know of the file.
pub(super) fn warning(config: &Config) -> Option<String> {
    let token = config.admin.as_ref()?.token.as_ref()?;
    let file = token.path.display();
    token.is_open().then(|| {
        format!("{file}: every user of this machine can read the token of [admin]; run: chmod 600 {file}")
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const ROUTE: &str = "[[listener]]\naddress = \"127.0.0.1:0\"\ntls = false\n[[route]]\npath = \"/\"\nservice = \"echo\"\n[admin]\n";

    #[test]
    fn the_file_holds_one_long_word() {
        let directory = tempfile::TempDir::new().unwrap();
        let file = directory.path().join("token");
        let (config, problems) = Config::parse(
            &directory.path().join("wssgate.toml"),
            &format!("{ROUTE}token_file = \"token\"\n"),
        );
        assert!(problems.is_empty(), "{problems:?}");
        let says = |text: &str| {
            std::fs::write(&file, text).unwrap();
            prepare(&config.clone()).map(|problem| problem.to_string())
        };
        for bad in ["", "short", &"a b".repeat(20), &"a".repeat(5000), &"ü".repeat(40)] {
            let problem = says(bad).unwrap();
            assert!(
                problem.contains("openssl rand -hex 32") && problem.contains(":8:14: token_file: "),
                "{problem}"
            );
        }
        assert_eq!(says(&format!("{}\n", "a".repeat(32))), None);
        std::fs::remove_file(&file).unwrap();
        assert!(prepare(&config.clone()).unwrap().to_string().contains("it can't be read"));
    }

    #[test]
    fn a_file_that_everybody_can_read_is_warned_of() {
        let directory = tempfile::TempDir::new().unwrap();
        let file = directory.path().join("token");
        std::fs::write(&file, "a".repeat(32)).unwrap();
        let text = format!("{ROUTE}token_file = \"token\"\n");
        for (mode, is_warned_of) in [(0o600, false), (0o640, false), (0o604, true)] {
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
            let (config, _) = Config::parse(&directory.path().join("wssgate.toml"), &text);
            assert_eq!(prepare(&config), None);
            assert_eq!(warning(&config).is_some(), is_warned_of, "{mode:o}");
        }
    }
}
