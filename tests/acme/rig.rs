//! A gateway that orders certificates from an authority of the test's.

use std::fs;
use std::net::{SocketAddr, TcpListener};

use support::authority::Authority;
use support::gateway::{Gateway, Setup};
use support::tls::{Tls, leaf};

const ROUTES: &str = "[[route]]\npath = \"/\"\nservice = \"echo\"\n[admin]\naddress = \"127.0.0.1:0\"\n\
                      [control]\nsocket = \"control.sock\"\n";

/// A gateway that has not started yet, whose addresses are known to the authority.
pub(crate) struct Rig {
    pub(crate) setup: Setup,
    pub(crate) config: String,
    pub(crate) tls: SocketAddr,
}

/// With these lines in `[acme]`, and a certificate for `default.test`.
pub(crate) fn rig(authority: &Authority, acme: &str) -> Rig {
    let sockets = ["127.0.0.1:0", "127.0.0.2:0"].map(|address| TcpListener::bind(address).unwrap());
    let [tls, plain] = [0, 1].map(|n: usize| sockets[n].local_addr().unwrap());
    authority.rule(|rules| {
        rules.tls.push(tls);
        rules.plain.push(plain);
    });
    let setup =
        Setup::new(env!("CARGO_BIN_EXE_wssgate")).with_certificate(&["default.test"]).activated(sockets);
    fs::write(setup.path().join("authority.pem"), authority.root_pem()).unwrap();
    let config = format!(
        "[[listener]]\naddress = \"{tls}\"\n[[listener]]\naddress = \"{plain}\"\ntls = false\nredirect = \"https\"\n\
         [certificates]\ndirectory = \"certs\"\ndefault = \"default.test\"\n\
         [acme]\ndirectory = \"{}\"\nca = \"authority.pem\"\n{acme}\n{ROUTES}",
        authority.directory()
    );
    Rig { setup, config, tls }
}

impl Rig {
    pub(crate) fn start(self) -> Gateway {
        self.setup.start(&self.config)
    }
}

/// The names of the certificate that clients get who ask for `name`.
pub(crate) async fn served(address: SocketAddr, name: &str) -> Result<Vec<String>, std::io::Error> {
    let stream = Tls::new(name, &[]).connect(address).await?;
    let der = leaf(&stream);
    let (_, certificate) = x509_parser::parse_x509_certificate(&der).unwrap();
    let names = certificate.subject_alternative_name().unwrap().unwrap();
    Ok(names
        .value
        .general_names
        .iter()
        .map(|name| name.to_string().replace("DNSName(", "").replace(')', ""))
        .collect())
}
