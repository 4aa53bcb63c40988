//! Clients have to show a certificate of an authority of ours; it says who they are.
//!
//! ```sh
//! cargo run -p wss-service --example client_certificates
//! ```
//!
//! `certs/` holds `server.crt` and `server.key`, and `clients.pem`, the authority.

use std::path::Path;

use wss_service::{
    BoxError, Certificates, ClientAuthFiles, Named, Plan, Refusal, Service, Session, StatusCode,
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), BoxError> {
    Ok(service("0.0.0.0:8282", Path::new("certs"))?.run().await?)
}

/// Greets clients by the subject of their certificates.
pub fn service(address: &str, certs: &Path) -> Result<Service, BoxError> {
    let client_auth = ClientAuthFiles {
        authorities: vec![certs.join("clients.pem")],
        revocation_lists: Vec::new(),
        required: true,
    };
    let named = Named {
        chain: vec![certs.join("server.crt")],
        key: certs.join("server.key"),
        client_auth: Some(client_auth),
    };
    let plan = Plan { named: vec![named], ..Plan::default() };
    Ok(Service::bind(address)?.certificates(Certificates::load(plan)?).on_open(greet))
}

async fn greet(session: Session) -> Result<(), Refusal> {
    let certificate = session.tls().and_then(|tls| tls.client_certificate.as_ref());
    let Some(certificate) = certificate else { return Err(StatusCode::FORBIDDEN.into()) };
    session.bind_user(&certificate.subject);
    let _ = session.send(format!("hello {}", certificate.subject)).await; // it leaves behind the answer
    Ok(())
}
