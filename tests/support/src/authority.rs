//! A certificate authority that speaks ACME (RFC 8555), and really looks at the names: at the ports that they lead to,
//! or into a file with the records of the DNS. It runs in a thread of its own, since tests wait for logs.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{CertificateSigningRequestParams, SerialNumber};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use crate::Io;
use crate::http1::{Head, read_answer, read_head};
use crate::pki::Pki;
use crate::tls::{BOTH, Tls, acceptor, leaf};

/// An authority.
pub struct Authority {
    address: SocketAddr,
    pki: Arc<Pki>,
    state: Arc<Mutex<State>>,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// How it behaves.
#[derive(Default)]
pub struct Rules {
    /// Where every name leads for tls-alpn-01.
    pub tls: Vec<SocketAddr>,
    /// Where every name leads for http-01.
    pub plain: Vec<SocketAddr>,
    /// The records of the DNS: a name and a text in each line.
    pub records: PathBuf,
    /// How long certificates are good; zero: 90 days.
    pub lifetime: Duration,
    /// What it suggests for renewals, in seconds since 1970; `None`: it knows no suggestions.
    pub window: Option<(i64, i64)>,
    /// Requests whose path begins so are refused: with a status, a problem, and a further field.
    pub refusal: Option<(&'static str, u16, Value, &'static str)>,
    /// The key that new accounts have to be bound to.
    pub external_key: Option<&'static str>,
    /// Requests whose path begins so wait until that is no longer the rule.
    pub held: Option<&'static str>,
    /// So many nonces are refused for each kind of request, before one is taken.
    pub bad_nonces: u32,
}

#[derive(Default)]
struct State {
    rules: Rules,
    orders: Vec<Order>,
    thumbprint: String,
    requests: Vec<String>,
    payloads: Vec<(String, Value)>,
    /// Nonces that were refused for each kind of request.
    nonces_refused: HashMap<String, u32>,
}

struct Order {
    identifiers: Vec<Value>,
    proofs: Vec<Proof>,
    certificate: Option<String>,
    replaces: Option<Value>,
}

#[derive(Clone)]
enum Proof {
    Pending,
    Valid,
    Invalid(Value),
}

impl Authority {
    /// Starts one whose names lead nowhere yet.
    #[must_use]
    pub fn start() -> Self {
        let (pki, state) = (Arc::new(Pki::new()), Arc::<Mutex<State>>::default());
        let (tell, address) = std::sync::mpsc::channel();
        let (end, ended) = oneshot::channel();
        let server = Server { pki: pki.clone(), state: state.clone() };
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                tell.send(listener.local_addr().unwrap()).unwrap();
                tokio::select! {
                    () = server.listen(listener) => {}
                    _ = ended => {}
                }
            });
        });
        Self { address: address.recv().unwrap(), pki, state, end: Some(end), thread: Some(thread) }
    }

    /// The URL of its directory.
    #[must_use]
    pub fn directory(&self) -> String {
        format!("https://127.0.0.1:{}/directory", self.address.port())
    }

    /// What its own server is trusted by, and the certificates that it issues.
    #[must_use]
    pub fn root_pem(&self) -> String {
        self.pki.root_pem()
    }

    /// Changes how it behaves.
    pub fn rule(&self, change: impl FnOnce(&mut Rules)) {
        change(&mut self.state().rules);
    }

    /// How many requests there were for paths that begin so.
    #[must_use]
    pub fn count(&self, path: &str) -> usize {
        self.state().requests.iter().filter(|request| request.starts_with(path)).count()
    }

    /// What was sent to this path, in order.
    #[must_use]
    pub fn payloads(&self, path: &str) -> Vec<Value> {
        self.state()
            .payloads
            .iter()
            .filter(|(to, _)| to == path)
            .map(|(_, payload)| payload.clone())
            .collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        let _ = self.end.take().unwrap().send(());
        let _ = self.thread.take().unwrap().join();
    }
}

#[derive(Clone)]
struct Server {
    pki: Arc<Pki>,
    state: Arc<Mutex<State>>,
}

/// Status, further fields, body.
type Answer = (u16, String, String);

impl Server {
    async fn listen(self, listener: TcpListener) {
        let tls = acceptor(BOTH, &self.pki.issue(&["127.0.0.1"]), None);
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            let (tls, server) = (tls.clone(), self.clone());
            tokio::spawn(async move {
                if let Ok(mut io) = tls.accept(tcp).await {
                    let _ = server.serve(&mut io).await;
                }
            });
        }
    }

    async fn serve(&self, io: &mut impl Io) -> std::io::Result<()> {
        let Some(head) = read_head(io).await else { return Ok(()) };
        let mut body = vec![0; head.get("content-length").map_or(0, |length| length.parse().unwrap())];
        io.read_exact(&mut body).await?;
        let host = format!("https://{}", head.get("host").unwrap());
        let (status, fields, body) = self.answer(&head, &body, &host).await;
        let nonce = format!("Replay-Nonce: n{}\r\n", rand(&self.state));
        let length = body.len();
        let answer = format!(
            "HTTP/1.1 {status} x\r\n{nonce}{fields}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        );
        io.write_all(answer.as_bytes()).await?;
        io.shutdown().await
    }

    async fn answer(&self, head: &Head, body: &[u8], host: &str) -> Answer {
        let path = head.line.split(' ').nth(1).unwrap().to_owned();
        let jose: Value = serde_json::from_slice(body).unwrap_or_default();
        let part = |name: &str| {
            let text = URL_SAFE_NO_PAD.decode(jose[name].as_str().unwrap_or_default()).unwrap();
            serde_json::from_slice::<Value>(&text).unwrap_or_default()
        };
        let (protected, payload) = (part("protected"), part("payload"));
        {
            let mut state = self.state.lock().unwrap();
            state.requests.push(path.clone());
            state.payloads.push((path.clone(), payload.clone()));
            if let Some((prefix, status, what, field)) = &state.rules.refusal
                && path.starts_with(prefix)
            {
                return (*status, format!("{field}\r\n"), what.to_string());
            }
            let (most, kind) = (state.rules.bad_nonces, path.split('/').nth(1).unwrap_or_default());
            let refused = state.nonces_refused.entry(kind.to_owned()).or_default();
            if head.line.starts_with("POST") && *refused < most {
                *refused += 1;
                return (400, String::new(), problem("badNonce", "another one").to_string());
            }
        }
        while self.state.lock().unwrap().rules.held.is_some_and(|held| path.starts_with(held)) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let steps: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        let number =
            |at: usize| steps.get(at).and_then(|digits| digits.parse::<usize>().ok()).unwrap_or_default();
        match steps[0] {
            "directory" => (200, String::new(), self.directory(host).to_string()),
            "nonce" => (200, String::new(), String::new()),
            "account" => self.account(&protected, &payload, host),
            "new-order" => self.new_order(&payload, host),
            "order" => (200, String::new(), self.order(number(1), host).to_string()),
            "authz" => (200, String::new(), self.authorization(number(1), number(2), host).to_string()),
            "challenge" => {
                if payload.is_object() {
                    let proof = self.validate(number(1), number(2), steps[3]).await;
                    self.state.lock().unwrap().orders[number(1)].proofs[number(2)] = proof;
                }
                let kind = steps[3];
                (200, String::new(), self.challenge(number(1), number(2), kind, host).to_string())
            }
            "finalize" => self.finalize(number(1), &payload, host),
            "certificate" => {
                let certificate = self.state.lock().unwrap().orders[number(1)].certificate.clone();
                (200, "Content-Type: application/pem-certificate-chain\r\n".to_owned(), certificate.unwrap())
            }
            "renewal" => self.suggestion(),
            other => panic!("what is {other}?"),
        }
    }

    fn directory(&self, host: &str) -> Value {
        let mut directory = json!({
            "newNonce": format!("{host}/nonce"),
            "newAccount": format!("{host}/account"),
            "newOrder": format!("{host}/new-order"),
            "meta": { "profiles": { "shortlived": "six days" } },
        });
        if self.state.lock().unwrap().rules.window.is_some() {
            directory["renewalInfo"] = format!("{host}/renewal").into();
        }
        directory
    }

    fn account(&self, protected: &Value, payload: &Value, host: &str) -> Answer {
        let mut state = self.state.lock().unwrap();
        if let Some(key) = state.rules.external_key {
            let bound = &payload["externalAccountBinding"]["protected"];
            let bound = URL_SAFE_NO_PAD.decode(bound.as_str().unwrap_or_default()).unwrap();
            if !String::from_utf8_lossy(&bound).contains(key) {
                return (401, String::new(), problem("externalAccountRequired", "who are you").to_string());
            }
        }
        if protected["jwk"].is_object() {
            let jwk = |name: &str| protected["jwk"][name].as_str().unwrap().to_owned();
            // RFC 7638 §3.
            let canonical = format!(
                r#"{{"crv":"{}","kty":"{}","x":"{}","y":"{}"}}"#,
                jwk("crv"),
                jwk("kty"),
                jwk("x"),
                jwk("y")
            );
            state.thumbprint = URL_SAFE_NO_PAD.encode(Sha256::digest(canonical));
        }
        (201, format!("Location: {host}/account/1\r\n"), json!({ "status": "valid" }).to_string())
    }

    fn new_order(&self, payload: &Value, host: &str) -> Answer {
        let number = {
            let mut state = self.state.lock().unwrap();
            let identifiers = payload["identifiers"].as_array().unwrap().clone();
            let proofs = vec![Proof::Pending; identifiers.len()];
            let replaces = payload.get("replaces").cloned();
            state.orders.push(Order { identifiers, proofs, certificate: None, replaces });
            state.orders.len() - 1
        };
        (201, format!("Location: {host}/order/{number}\r\n"), self.order(number, host).to_string())
    }

    fn order(&self, number: usize, host: &str) -> Value {
        let state = self.state.lock().unwrap();
        let order = &state.orders[number];
        let status = if order.certificate.is_some() {
            "valid"
        } else if order.proofs.iter().any(|proof| matches!(proof, Proof::Invalid(_))) {
            "invalid"
        } else if order.proofs.iter().any(|proof| matches!(proof, Proof::Pending)) {
            "pending"
        } else {
            "ready"
        };
        let authorizations = 0..order.proofs.len();
        let mut shown = json!({
            "status": status,
            "identifiers": order.identifiers,
            "authorizations": authorizations.map(|n| format!("{host}/authz/{number}/{n}")).collect::<Vec<_>>(),
            "finalize": format!("{host}/finalize/{number}"),
        });
        if order.certificate.is_some() {
            shown["certificate"] = format!("{host}/certificate/{number}").into();
        }
        if let Some(replaces) = &order.replaces {
            shown["replaces"] = replaces.clone();
        }
        shown
    }

    fn authorization(&self, number: usize, name: usize, host: &str) -> Value {
        let kinds = ["http-01", "tls-alpn-01", "dns-01"];
        let challenges: Vec<_> = kinds.iter().map(|kind| self.challenge(number, name, kind, host)).collect();
        let state = self.state.lock().unwrap();
        let order = &state.orders[number];
        let full = order.identifiers[name]["value"].as_str().unwrap();
        json!({
            "identifier": { "type": "dns", "value": full.trim_start_matches("*.") },
            "wildcard": full.starts_with("*."),
            "status": order.proofs[name].status(),
            "challenges": challenges,
        })
    }

    fn challenge(&self, number: usize, name: usize, kind: &str, host: &str) -> Value {
        let state = self.state.lock().unwrap();
        let proof = &state.orders[number].proofs[name];
        let mut shown = json!({
            "type": kind,
            "url": format!("{host}/challenge/{number}/{name}/{kind}"),
            "token": token(number, name),
            "status": proof.status(),
        });
        if let Proof::Invalid(problem) = proof {
            shown["error"] = problem.clone();
        }
        shown
    }

    /// Looks for the proof of a name, at every place that it leads to.
    async fn validate(&self, number: usize, name: usize, kind: &str) -> Proof {
        let (expected, full, tls, plain, records) = {
            let state = self.state.lock().unwrap();
            let expected = format!("{}.{}", token(number, name), state.thumbprint);
            let full = state.orders[number].identifiers[name]["value"].as_str().unwrap().to_owned();
            let Rules { tls, plain, records, .. } = &state.rules;
            (expected, full, tls.clone(), plain.clone(), records.clone())
        };
        let digest = Sha256::digest(&expected);
        let (places, mut found) = match kind {
            "tls-alpn-01" => (tls, Ok(true)),
            "http-01" => (plain, Ok(true)),
            _ => {
                let name = full.trim_start_matches("*.");
                let line = format!("_acme-challenge.{name} {}", URL_SAFE_NO_PAD.encode(digest));
                let text = std::fs::read_to_string(records).unwrap_or_default();
                return Proof::of(Ok(text.lines().any(|found| found == line)));
            }
        };
        if places.is_empty() {
            found = Err(std::io::Error::other("nowhere"));
        }
        for place in places {
            let looked = if kind == "http-01" {
                look_by_http(place, &full, &expected).await
            } else {
                look_by_tls(place, &full, &digest).await
            };
            found = found.and_then(|all| looked.map(|one| all && one));
        }
        Proof::of(found)
    }

    fn finalize(&self, number: usize, payload: &Value, host: &str) -> Answer {
        let request = URL_SAFE_NO_PAD.decode(payload["csr"].as_str().unwrap()).unwrap();
        let mut request = CertificateSigningRequestParams::from_der(&request.into()).unwrap();
        let now = OffsetDateTime::now_utc();
        {
            let mut state = self.state.lock().unwrap();
            let lifetime = match state.rules.lifetime {
                Duration::ZERO => Duration::from_secs(90 * 86_400),
                lifetime => lifetime,
            };
            request.params.not_before = now;
            request.params.not_after = now + lifetime;
            request.params.serial_number = Some(SerialNumber::from(number as u64 + 1));
            request.params.use_authority_key_identifier_extension = true;
            let chain = self.pki.sign_request(&request);
            state.orders[number].certificate = Some(chain);
        }
        (200, String::new(), self.order(number, host).to_string())
    }

    fn suggestion(&self) -> Answer {
        let (start, end) = self.state.lock().unwrap().rules.window.unwrap();
        let text = |at: i64| {
            let at = OffsetDateTime::from_unix_timestamp(at).unwrap();
            let (date, hour, minute, second) = (at.date(), at.hour(), at.minute(), at.second());
            format!("{date}T{hour:02}:{minute:02}:{second:02}Z")
        };
        let window = json!({ "suggestedWindow": { "start": text(start), "end": text(end) } });
        (200, "Retry-After: 3600\r\n".to_owned(), window.to_string())
    }
}

impl Proof {
    fn of(found: std::io::Result<bool>) -> Self {
        match found {
            Ok(true) => Self::Valid,
            Ok(false) => Self::Invalid(problem("unauthorized", "something else is there")),
            Err(e) => Self::Invalid(problem("connection", &e.to_string())),
        }
    }

    fn status(&self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Valid => "valid",
            Self::Invalid(_) => "invalid",
        }
    }
}

/// A problem document (RFC 8555 §6.7).
#[must_use]
pub fn problem(kind: &str, detail: &str) -> Value {
    json!({ "type": format!("urn:ietf:params:acme:error:{kind}"), "detail": detail })
}

fn token(number: usize, name: usize) -> String {
    format!("token-{number}_{name}-of-the-authority")
}

/// Another number each time.
fn rand(state: &Mutex<State>) -> usize {
    state.lock().unwrap().requests.len()
}

/// RFC 8737 §3: the certificate has the digest, and the protocol is the one for that.
async fn look_by_tls(place: SocketAddr, name: &str, digest: &[u8]) -> std::io::Result<bool> {
    let io = Tls::new(name, &["acme-tls/1"]).trusting_all().connect(place).await?;
    let protocol = io.get_ref().1.alpn_protocol() == Some(b"acme-tls/1");
    Ok(protocol && leaf(&io).windows(digest.len()).any(|part| part == digest))
}

/// RFC 8555 §8.3. The token is what stands before the dot.
async fn look_by_http(place: SocketAddr, name: &str, expected: &str) -> std::io::Result<bool> {
    let token = expected.split('.').next().unwrap();
    let mut io = TcpStream::connect(place).await?;
    let request = format!("GET /.well-known/acme-challenge/{token} HTTP/1.1\r\nHost: {name}\r\n\r\n");
    io.write_all(request.as_bytes()).await?;
    let answer = read_answer(&mut io, false).await.ok_or(std::io::ErrorKind::UnexpectedEof)?;
    Ok(answer.status() == 200 && answer.text().trim_end() == expected)
}
