//! What messages notice of scrapes: of a page with all that a thousand routes have counted, asked for again and again.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use support::full_size;
use support::gateway::{Gateway, Setup, config};
use support::http1::ask;
use support::swarm::{Clients, Plan, SERVER_NAME};
use tokio::net::TcpStream;
use tokio::runtime::Builder;
use tokio::time::interval;

use super::WSSGATE;

const ROUTES: usize = 1000;

/// How a scraper asks.
struct Way {
    name: &'static str,
    fields: &'static str,
    /// From the beginning of one scrape to that of the next.
    interval: Duration,
}

/// Prometheus takes what is compressed; the other way is the worst that there is.
const WAYS: [Way; 3] = [
    Way { name: "compressed, one a second", fields: GZIP, interval: Duration::from_secs(1) },
    Way { name: "compressed, one after the other", fields: GZIP, interval: Duration::ZERO },
    Way { name: "plain, one after the other", fields: "", interval: Duration::ZERO },
];
const GZIP: &str = "Accept-Encoding: gzip\r\n";

pub(super) fn scraped_routes() {
    let (sockets, per_second, seconds) = if full_size() { (2000, 2000, 20) } else { (100, 500, 2) };
    let setup = Setup::new(WSSGATE).with_certificate(&[SERVER_NAME]);
    let mut routes = "[admin]\naddress = \"127.0.0.3:0\"\n".to_owned();
    for n in 0..ROUTES {
        routes += &format!("[[route]]\npath = \"/{n}\"\nservice = \"echo\"\n");
    }
    let gateway = setup.start(&config("", &routes));
    Builder::new_current_thread().enable_all().build().unwrap().block_on(use_each_route(&gateway));
    let plan =
        Plan { gateway: gateway.address(), path: "/7", sockets, first_source: 0, per_second, mixed: false };
    let mut clients = Clients::start(plan);
    clients.connected();
    clients.go_on();

    let window = Duration::from_secs(seconds);
    for way in &WAYS {
        clients.seen();
        std::thread::sleep(window);
        let quiet = clients.seen();
        let admin = gateway.admin();
        let (scrapes, len) =
            std::thread::scope(|scope| scope.spawn(|| scrapes(admin, way, window)).join().unwrap());
        let scraped = clients.seen();
        eprintln!(
            "{ROUTES} routes, {per_second} messages a second: 99.9 % within {:?}, at worst {:?}; during {scrapes} \
             scrapes of {len} bytes, {}: 99.9 % within {:?}, at worst {:?}",
            quiet.p999, quiet.worst, way.name, scraped.p999, scraped.worst
        );
        assert!(scrapes > 1);
        if full_size() {
            assert!(scraped.p999 <= quiet.p999 + Duration::from_millis(50), "{:?}", scraped.p999);
        }
    }
    let end = clients.stop();
    assert_eq!((end.wrong, end.sent), (Vec::new(), end.echoed));
}

/// Scrapes until `window` is over; how often, and how long the last body was. A scraper is on another machine, as a
/// rule: this one leaves the processors to the gateway and its clients.
fn scrapes(admin: SocketAddr, way: &Way, window: Duration) -> (u32, usize) {
    let _ = rustix::process::nice(19);
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (mut count, mut len, begun) = (0, 0, Instant::now());
        let mut next = interval(way.interval.max(Duration::from_millis(1)));
        while begun.elapsed() < window {
            next.tick().await;
            len = scrape(admin, way.fields).await;
            count += 1;
        }
        (count, len)
    })
}

/// One that was not used has hardly a line.
async fn use_each_route(gateway: &Gateway) {
    let mut io = TcpStream::connect(gateway.addresses()[1]).await.unwrap();
    for n in 0..ROUTES {
        let request = format!("GET /{n} HTTP/1.1\r\nHost: {SERVER_NAME}\r\n\r\n");
        assert_eq!(ask(&mut io, request).await.status(), 426);
    }
}

/// Returns how long the body is.
async fn scrape(admin: SocketAddr, fields: &str) -> usize {
    let mut io = TcpStream::connect(admin).await.unwrap();
    let page = ask(&mut io, format!("GET /metrics HTTP/1.1\r\nHost: admin\r\n{fields}\r\n")).await;
    assert_eq!(page.status(), 200);
    assert_eq!(page.head.get("content-encoding").is_some(), !fields.is_empty());
    page.body.len()
}
