//! A small DNS server whose answers and TTLs change.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::oneshot;

const A: u16 = 1;
const SOA: u16 = 6;
const AAAA: u16 = 28;
const SRV: u16 = 33;
const NO_ERROR: u8 = 0;
const SERVFAIL: u8 = 2;
const NXDOMAIN: u8 = 3;
/// For how long there is no such name.
const NEGATIVE_TTL: u32 = 1;

/// A running server; it ends when dropped.
pub struct Dns {
    /// Where it listens, by UDP and TCP.
    pub address: SocketAddr,
    zone: Arc<Mutex<Zone>>,
    /// It ends with this.
    _end: oneshot::Sender<()>,
}

type Records = (u32, Vec<Vec<u8>>);

#[derive(Default)]
struct Zone {
    /// By name and type: a TTL, and what follows it in an answer.
    records: BTreeMap<(String, u16), Records>,
    fails: bool,
    truncates: bool,
    asked: Vec<(String, u16)>,
}

impl Dns {
    /// One without names. It has a thread of its own, since tests wait on theirs for the gateway to start.
    #[must_use]
    pub fn start() -> Self {
        let zone = Arc::<Mutex<Zone>>::default();
        let (end, ended) = oneshot::channel::<()>();
        let (tell, told) = std::sync::mpsc::channel();
        let shared = zone.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let (udp, tcp) = loop {
                    let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
                    // Another test may have that port.
                    if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()).await {
                        break (udp, tcp);
                    }
                };
                tell.send(udp.local_addr().unwrap()).unwrap();
                tokio::select! {
                    () = by_udp(udp, shared.clone()) => {}
                    () = by_tcp(tcp, shared) => {}
                    _ = ended => {}
                }
            });
        });
        Self { address: told.recv().unwrap(), zone, _end: end }
    }

    /// The name has these addresses, and no others.
    pub fn set(&self, name: &str, ttl: u32, addresses: &[&str]) {
        let all: Vec<IpAddr> = addresses.iter().map(|ip| ip.parse().unwrap()).collect();
        let mut zone = self.lock();
        for (kind, is_v6) in [(A, false), (AAAA, true)] {
            let of_kind = all.iter().filter(|ip| ip.is_ipv6() == is_v6).map(|ip| match ip {
                IpAddr::V4(ip) => ip.octets().to_vec(),
                IpAddr::V6(ip) => ip.octets().to_vec(),
            });
            zone.records.insert((name.to_owned(), kind), (ttl, of_kind.collect()));
        }
    }

    /// The service has these targets: priority, weight, port and name.
    pub fn set_service(&self, name: &str, ttl: u32, targets: &[(u16, u16, u16, &str)]) {
        let record = |(priority, weight, port, host): &(u16, u16, u16, &str)| {
            let mut data = Vec::new();
            for number in [priority, weight, port] {
                data.extend(number.to_be_bytes());
            }
            data.extend(encode_name(host));
            data
        };
        let records = targets.iter().map(record).collect();
        self.lock().records.insert((name.to_owned(), SRV), (ttl, records));
    }

    /// There is no such name any more.
    pub fn remove(&self, name: &str) {
        self.lock().records.retain(|(other, _), _| other != name);
    }

    /// Every answer is SERVFAIL, or no longer.
    pub fn fail(&self, fails: bool) {
        self.lock().fails = fails;
    }

    /// Every answer by UDP is cut off, so that TCP has to be used.
    pub fn truncate(&self) {
        self.lock().truncates = true;
    }

    /// How often there was a question about this name.
    #[must_use]
    pub fn asked(&self, name: &str) -> usize {
        self.lock().asked.iter().filter(|(other, _)| other == name).count()
    }

    /// For the configuration of a gateway.
    #[must_use]
    pub fn section(&self) -> String {
        format!("[dns]\nservers = [\"{}\"]\nresolv_conf = \"resolv.conf\"\nhosts = \"hosts\"\n", self.address)
    }

    fn lock(&self) -> MutexGuard<'_, Zone> {
        self.zone.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn by_udp(socket: UdpSocket, zone: Arc<Mutex<Zone>>) {
    let mut question = [0; 1500];
    while let Ok((len, from)) = socket.recv_from(&mut question).await {
        let answer = zone.lock().unwrap_or_else(PoisonError::into_inner).answer(&question[..len], true);
        let _ = socket.send_to(&answer, from).await;
    }
}

async fn by_tcp(listener: TcpListener, zone: Arc<Mutex<Zone>>) {
    while let Ok((mut tcp, _)) = listener.accept().await {
        let zone = zone.clone();
        tokio::spawn(async move {
            while let Ok(len) = tcp.read_u16().await {
                let mut question = vec![0; len.into()];
                if tcp.read_exact(&mut question).await.is_err() {
                    return;
                }
                let answer = zone.lock().unwrap_or_else(PoisonError::into_inner).answer(&question, false);
                let framed = [&u16::try_from(answer.len()).unwrap().to_be_bytes()[..], &answer].concat();
                if tcp.write_all(&framed).await.is_err() {
                    return;
                }
            }
        });
    }
}

impl Zone {
    /// An answer (RFC 1035 §4.1) to a message with one question.
    fn answer(&mut self, message: &[u8], by_udp: bool) -> Vec<u8> {
        let (name, end) = decode_name(message, 12);
        let kind = u16::from_be_bytes([message[end], message[end + 1]]);
        self.asked.push((name.clone(), kind));
        let exists = self.records.keys().any(|(other, _)| *other == name);
        let empty = (0, Vec::new());
        let (ttl, records) = self.records.get(&(name, kind)).unwrap_or(&empty);
        let code = match exists {
            _ if self.fails => SERVFAIL,
            true => NO_ERROR,
            false => NXDOMAIN,
        };
        let is_cut = by_udp && self.truncates && code == NO_ERROR;
        let records = if code == NO_ERROR && !is_cut { &records[..] } else { &[] };
        let has_soa = records.is_empty() && code != SERVFAIL && !is_cut;
        let count = |n: usize| u16::try_from(n).unwrap().to_be_bytes();
        let mut answer = message[..2].to_vec();
        answer.extend([0x85 | u8::from(is_cut) << 1, 0x80 | code]); // an answer, with authority, recursion on both sides
        answer.extend([count(1), count(records.len()), count(has_soa.into()), count(0)].concat());
        answer.extend(&message[12..end + 4]);
        let record = |kind: u16, ttl: u32, data: &[u8]| {
            let mut record = vec![0xC0, 12]; // the name of the question
            record.extend([kind.to_be_bytes(), 1u16.to_be_bytes()].concat());
            record.extend(ttl.to_be_bytes());
            record.extend(count(data.len()));
            record.extend(data);
            record
        };
        for data in records {
            answer.extend(record(kind, *ttl, data));
        }
        if has_soa {
            // Two empty names, four numbers, and how long there is nothing (RFC 2308 §4).
            let data = [&[0; 18][..], &NEGATIVE_TTL.to_be_bytes()].concat();
            answer.extend(record(SOA, NEGATIVE_TTL, &data));
        }
        answer
    }
}

fn encode_name(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in name.split('.').filter(|label| !label.is_empty()) {
        bytes.push(u8::try_from(label.len()).unwrap());
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    bytes
}

fn decode_name(message: &[u8], mut at: usize) -> (String, usize) {
    let mut labels = Vec::new();
    loop {
        let len = usize::from(message[at]);
        at += 1;
        if len == 0 {
            return (labels.join("."), at);
        }
        labels.push(String::from_utf8_lossy(&message[at..at + len]).to_ascii_lowercase());
        at += len;
    }
}
